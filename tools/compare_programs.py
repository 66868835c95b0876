#!/usr/bin/env python3
"""Whether two builds of the program compute the same bits: losses and weights of short trainings, logits of model directories.

    tools/compare_programs.py OLD NEW --data TEXT [--steps 20] [--study-steps 4] [--cases DIR] [--only WORD]

OLD and NEW are birkhoff programs, TEXT a file to train on. Trained are the preset demo and every variant of studies/*.json; DIR (default
tests/golden/cases) holds model directories whose logits are taken in fp32 and in bf16, with their golden prompts. One line each: equal, or
what differs first. Exit code 1 when anything does."""
import argparse
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What a step computes; times, memory and speed are left out.
COMPUTED = ("step", "tokens", "loss", "aux_loss", "z_loss", "mtp_loss", "indexer_loss", "val_loss", "lr", "grad_norm", "gain", "maxvio", "expert_load")


def run(program, *arguments):
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, errors="replace")
    return f"exit {done.returncode}: {done.stderr.strip()[-200:]}" if done.returncode else ""


def training(program, settings, data, folder):
    """The computed fields of every step and the hashes of the weights, or what went wrong."""
    flags = [x for key, value in settings.items() for x in ("--set", f"{key}={json.dumps(value) if isinstance(value, bool) else value}")]
    failed = run(program, "train", "--preset", "demo", *flags, "--data", data, "--out", folder, "--quiet")
    if failed:
        return [failed]
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    weights = [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((folder / "latest").resolve().rglob("*.safetensors"))]
    return [{key: step.get(key) for key in COMPUTED} for step in steps] + weights


def logits(program, directory, dtype, folder):
    ids, out = folder / "ids", folder / "logits.safetensors"
    folder.mkdir()
    vocabulary = json.loads((directory / "config.json").read_text()).get("vocab_size", 1)
    ids.write_text(" ".join(str(i * 7919 % vocabulary) for i in range(1, 25)))
    failed = run(program, "logits", "-m", directory, "--tokens-file", ids, "--out", out, "--dtype", dtype)
    return [failed or hashlib.sha256(out.read_bytes()).hexdigest()]


def first_difference(a, b):
    for place, (x, y) in enumerate(zip(a, b)):
        if x != y:
            keys = [k for k in x if x[k] != y[k]] if isinstance(x, dict) and isinstance(y, dict) else []
            return f"differs at {place}: " + (", ".join(f"{k} {x[k]} {y[k]}" for k in keys) or f"{x} {y}")
    return "" if len(a) == len(b) else f"{len(a)} and {len(b)} records"


def jobs(options):
    """(name, what a program computes into a folder)"""
    def trained(settings):
        return lambda program, folder: training(program, settings, options.data, folder)

    yield "demo", trained({"steps": options.steps, "eval_every": 10, "gain_every": 5})
    for file in sorted((ROOT / "studies").glob("*.json")):
        study = json.loads(file.read_text())
        for variant in study["variants"]:
            settings = {**study.get("set", {}), **variant["set"], "steps": options.study_steps, "eval_every": options.study_steps}
            yield f"{file.stem}/{variant['name']}", trained(settings)
    for directory in sorted(p.parent for p in options.cases.glob("*/config.json")):
        for dtype in ("fp32", "bf16"):
            yield f"logits of {directory.name} in {dtype}", lambda program, folder, d=directory, t=dtype: logits(program, d, t, folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs=2, metavar="PROGRAM")
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--study-steps", type=int, default=4)
    parser.add_argument("--cases", type=pathlib.Path, default=ROOT / "tests" / "golden" / "cases")
    parser.add_argument("--only", default="", help="jobs whose name holds this")
    options = parser.parse_args()
    different = count = 0
    for name, compute in jobs(options):
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            results = [compute(program, pathlib.Path(folder) / which) for program, which in zip(options.programs, ("old", "new"))]
        failed = [r[0] for r in results if isinstance(r[0], str) and r[0].startswith("exit")]
        if len(failed) == 2:
            print(f"{name:40} refused by both: {failed[1]}", flush=True)
            continue
        problem = first_difference(*results)
        count += 1
        different += bool(problem)
        print(f"{name:40} {problem or 'equal'}", flush=True)
    print(f"{count - different} of {count} equal")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
