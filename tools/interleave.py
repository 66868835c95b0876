#!/usr/bin/env python3
"""Running time of two commands that take turns on the machine: a comparison that its drift cannot bend.

    tools/interleave.py [--slice SECONDS] "COMMAND A" "COMMAND B"

Both start, and only one runs at a time, SECONDS each (0.5); the other is stopped. Printed is the time for which each ran until its end. What two
runs of different length have in common (start-up) is taken out by a difference: A and B with few steps, then with more."""
import argparse
import os
import shlex
import signal
import subprocess
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slice", type=float, default=0.5)
    parser.add_argument("commands", nargs=2)
    o = parser.parse_args()
    running = [subprocess.Popen(shlex.split(c), stdout=subprocess.DEVNULL, start_new_session=True) for c in o.commands]
    for p in running:
        os.killpg(p.pid, signal.SIGSTOP)
    ran = [0.0, 0.0]
    while any(p.poll() is None for p in running):
        for i, p in enumerate(running):
            if p.poll() is not None:
                continue
            start = time.monotonic()
            os.killpg(p.pid, signal.SIGCONT)
            try:
                p.wait(timeout=o.slice)
            except subprocess.TimeoutExpired:
                os.killpg(p.pid, signal.SIGSTOP)
            ran[i] += time.monotonic() - start
    for command, seconds, p in zip(o.commands, ran, running):
        print(f"{seconds:9.2f} s  exit {p.returncode}  {command}")
    print(f"second over first: {ran[1] / ran[0]:.4f}")
    return max(abs(p.returncode) for p in running)


if __name__ == "__main__":
    raise SystemExit(main())
