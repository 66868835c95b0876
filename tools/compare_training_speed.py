#!/usr/bin/env python3
"""Training speed and memory beside another program's, interleaved: what docs/performance.md quotes.

    tools/compare_training_speed.py --peer "python torch_train.py --compile --jemalloc LIB" [--presets tiny,small] [--rounds 2]

The peer is a command that takes --config PRESET --residual residual|mhc --precision bf16|fp32 --steps N --warm N --json FILE and writes
JSON with tokens_per_second {median, max} and steady_rss_mib somewhere in it. Rounds alternate, so that a change of the machine's speed
meets both. Printed are the median step's speed (median of the rounds) and the fastest step's, which others on the machine disturb less.
We always train in bf16; a processor without bf16 products may suit the peer better in
fp32 (--peer-precision)."""
import argparse
import json
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile

PROGRAM = pathlib.Path(__file__).resolve().parent.parent / "build" / "release" / "bin" / "birkhoff"


def ours(preset, residual, steps):
    out = subprocess.run([PROGRAM, "bench", "train", "--preset", preset, "--set", f"residual={residual}", "--set", "dtype=bf16", "--steps", str(steps), "--json"],
                         check=True, capture_output=True, text=True).stdout
    record = json.loads(out)
    median, step = record["tokens_per_s"], record["step_ms"]
    return median, median * step["median"] / step["min"], record["rss_mib"]


def find(node, key):
    """The first value of a key anywhere in a JSON document."""
    if isinstance(node, dict):
        if key in node:
            return node[key]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            if (value := find(child, key)) is not None:
                return value
    return None


def theirs(command, preset, residual, options):
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        kind = "residual" if residual == "plain" else residual
        subprocess.run([*command, "--config", preset, "--residual", kind, "--precision", options.peer_precision, "--steps", str(options.steps), "--warm", str(options.peer_warm), "--json", file.name], check=True, capture_output=True)
        record = json.load(open(file.name))
    speed = find(record, "tokens_per_second")
    return speed["median"], speed["max"], find(record, "steady_rss_mib")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--presets", default="tiny,small")
    parser.add_argument("--residuals", default="plain,mhc")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--peer-precision", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--peer-warm", type=int, default=3, help="its unmeasured steps")
    o = parser.parse_args()
    print("tokens/s: preset, residual | ours, peer, ratio of the medians | of the fastest steps | MiB ours, peer, ratio", flush=True)
    worst = float("inf")
    for preset in o.presets.split(","):
        for residual in o.residuals.split(","):
            pairs = [(ours(preset, residual, o.steps), theirs(shlex.split(o.peer), preset, residual, o)) for _ in range(o.rounds)]
            rows = []
            for column, combine in ((0, statistics.median), (1, max), (2, max)):
                mine, other = (combine(p[side][column] for p in pairs) for side in (0, 1))
                rows.append(f"{mine:8.0f} {other:8.0f} {mine / other:6.2f}")
                worst = min(worst, mine / other) if column == 0 else worst
            print(f"{preset:7} {residual:8} | " + " | ".join(rows), flush=True)
    return 0 if worst >= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
