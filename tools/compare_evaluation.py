#!/usr/bin/env python3
"""Times `birkhoff eval` beside lm-evaluation-harness on the same model, documents and threads, in turns, and compares what both chose.

compare_evaluation.py --program build/native/bin/birkhoff --python VENV/bin/python -m DIR --data-dir DATA --tasks hellaswag [--fewshot 10]
    [--limit 100] [--max-gen 256] [--rounds 2] [--threads 2] [--local LOADER.py]

VENV has lm_eval 0.4.13, transformers and torch. DIR is a model directory that transformers opens. LOADER.py has install(data_dir), which
replaces datasets.load_dataset by local files; without it the harness brings its documents from their public homes. The harness'
time is without loading the model, ours is that of the whole program.
"""
import argparse
import json
import os
import pathlib
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--program", help="birkhoff")
    p.add_argument("--python", help="interpreter that has lm_eval")
    p.add_argument("-m", "--model", required=True)
    p.add_argument("--data-dir", required=True)
    p.add_argument("--tasks", required=True)
    p.add_argument("--fewshot", type=int)
    p.add_argument("--limit", type=float)
    p.add_argument("--max-gen", type=int)
    p.add_argument("--context", type=int)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--batch", type=int, default=1, help="of the harness")
    p.add_argument("--args", default="", help="more arguments for birkhoff, in one string")
    p.add_argument("--local", help="LOADER.py")
    p.add_argument("--harness", help=argparse.SUPPRESS)  # where this process, which has lm_eval, writes what it measured
    return p.parse_args()


def run_harness(a):
    """In the interpreter that has lm_eval."""
    os.environ.update(HF_HUB_OFFLINE="1" if a.local else "0", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS=str(a.threads))
    if a.local:
        sys.path.insert(0, str(pathlib.Path(a.local).parent))
        __import__(pathlib.Path(a.local).stem).install(a.data_dir)
    import torch
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(a.threads)
    model = HFLM(pretrained=a.model, dtype="float32", device="cpu", batch_size=a.batch, max_length=a.context, add_bos_token=True)
    start = time.monotonic()
    got = evaluator.simple_evaluate(model=model, tasks=a.tasks.split(","), num_fewshot=a.fewshot, limit=a.limit, bootstrap_iters=0,
                                    gen_kwargs=f"max_gen_toks={a.max_gen}" if a.max_gen else None, log_samples=True)
    seconds = time.monotonic() - start
    choices = {}
    for task, samples in got["samples"].items():
        for s in samples:
            if s["resps"] and isinstance(s["filtered_resps"][0], (list, tuple)):
                choices[f"{task} {s['doc_id']}"] = [float(r[0]) for r in s["filtered_resps"]]
            else:
                choices[f"{task} {s['doc_id']}"] = s["resps"][0][0]
    pathlib.Path(a.harness).write_text(json.dumps({
        "seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "answers": choices,
        "results": {t: {k: v for k, v in r.items() if isinstance(v, float)} for t, r in got["results"].items()}}))


def ours(a, out):
    command = [a.program, "eval", "-m", a.model, "--tasks", a.tasks, "--data-dir", a.data_dir, "--dtype", "fp32", "--threads", str(a.threads), "--out", str(out)]
    for flag, value in (("--fewshot", a.fewshot), ("--limit", a.limit), ("--max-gen", a.max_gen), ("--context", a.context)):
        command += [flag, f"{value:g}"] if value is not None else []
    command += shlex.split(a.args)
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"birkhoff ended with {os.waitstatus_to_exitcode(status)}")
    results = json.loads((out / "results.json").read_text())
    answers = {}
    for task in results["results"]:
        for line in (out / f"samples_{task}.jsonl").read_text().splitlines():
            s = json.loads(line)
            answers[f"{task} {s['doc_id']}"] = [c["logprob"] for c in s["choices"]] if "choices" in s else s["generated"]
    return {"seconds": time.monotonic() - start, "peak_mib": usage.ru_maxrss // 1024, "answers": answers, "results": results["results"], "counts": results["counts"]}


def agreement(mine, theirs):
    same, apart = 0, 0.0
    for key, a in mine.items():
        b = theirs[key]
        if isinstance(a, str):
            same += a == b
        else:
            same += a.index(max(a)) == b.index(max(b))
            apart = max([apart] + [abs(x - y) for x, y in zip(a, b)])
    return same, apart


def main():
    a = arguments()
    if a.harness:
        return run_harness(a)
    mine, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(a.rounds):
            mine.append(ours(a, pathlib.Path(folder) / f"ours{i}"))
            theirs_file = pathlib.Path(folder) / "theirs.json"
            subprocess.run([a.python, __file__, *sys.argv[1:], "--harness", str(theirs_file)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            theirs.append(json.loads(theirs_file.read_text()))
            print(f"round {i + 1}: birkhoff {mine[-1]['seconds']:.2f} s, {mine[-1]['peak_mib']} MiB; harness {theirs[-1]['seconds']:.2f} s, {theirs[-1]['peak_mib']} MiB", flush=True)
    ratio = statistics.median(t["seconds"] for t in theirs) / statistics.median(m["seconds"] for m in mine)
    same, apart = agreement(mine[-1]["answers"], theirs[-1]["answers"])
    counts = mine[-1]["counts"]
    print(f"{ratio:.1f}x; same answer in {same} of {len(mine[-1]['answers'])}, log-likelihoods apart by up to {apart:.2e}; "
          f"tokens computed {counts['computed_tokens']}, {counts['prompt_tokens']} in all requests")
    for task, r in theirs[-1]["results"].items():
        if task in mine[-1]["results"]:
            print(task, {k: (mine[-1]["results"][task].get(k), v) for k, v in r.items() if "stderr" not in k})


if __name__ == "__main__":
    main()
