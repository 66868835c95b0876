#!/usr/bin/env python3
"""Times prompts and decoding of one model file by birkhoff and by the bench program of llama.cpp or ik_llama.cpp, in turns.

    tools/compare_inference.py MODEL.gguf --peer PATH/llama-bench [--peer-args "-rtr 1"] [--prompt 512] [--decode 32] [--turns 3]

Machines drift: what counts is the ratio within a turn. Both read the file from the page cache, with the same number of threads."""
import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{shlex.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def ours(a):
    out = json.loads(run([a.program, "bench", "infer", "-m", a.model, "--prompt", str(a.prompt), "--decode", str(a.decode),
                          "--threads", str(a.threads), "--json", *shlex.split(a.args)]))
    (depth,) = out["depths"]
    return {"prompt": depth["prompt_tokens_per_s"], "decode": 1e3 / depth["decode_ms"]["median"], "of_bandwidth": depth["of_read_bandwidth"]}


def peer(a):
    rows = json.loads(run([a.peer, "-m", a.model, "-p", str(a.prompt), "-n", str(a.decode), "-t", str(a.threads), "-r", "1", "-o", "json",
                           *shlex.split(a.peer_args)]))
    found = {}
    for row in rows:
        found["decode" if row["n_gen"] else "prompt"] = row["avg_ts"]
    return found


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("model")
    p.add_argument("--program", default="build/native/bin/birkhoff")
    p.add_argument("--peer", required=True, help="llama-bench of llama.cpp or ik_llama.cpp")
    p.add_argument("--args", default="", help="more arguments for birkhoff, in one string")
    p.add_argument("--peer-args", default="", help="more arguments for the peer, in one string")
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--decode", type=int, default=32)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--turns", type=int, default=3)
    a = p.parse_args()
    turns = []
    for turn in range(a.turns):
        one = {"ours": ours(a), "peer": peer(a)}
        turns.append(one)
        print(f"turn {turn + 1}: " + ", ".join(f"{what} {one['ours'][what]:.1f} / {one['peer'][what]:.1f} tokens/s" for what in ("prompt", "decode")),
              file=sys.stderr)
    for what in ("prompt", "decode"):
        mine, theirs = ([t[who][what] for t in turns] for who in ("ours", "peer"))
        ratios = [m / t for m, t in zip(mine, theirs)]
        print(f"{what:7} birkhoff {statistics.median(mine):8.1f}   peer {statistics.median(theirs):8.1f} tokens/s   "
              f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"decoding reads weights at {statistics.median(t['ours']['of_bandwidth'] for t in turns):.0%} of this machine's read bandwidth")


if __name__ == "__main__":
    main()
