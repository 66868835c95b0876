#!/usr/bin/env python3
"""Running time of two commands that take turns on the machine: a comparison that its drift cannot bend.

    tools/interleave.py [--slice SECONDS] [--from TEXT] "COMMAND A" "COMMAND B"

Both start, and only one runs at a time, SECONDS each (0.5); the other is stopped. Printed is the time for which each ran until its end: from its
start, or from its first line on stderr that holds TEXT, so that preparations do not count. `bench train` says "warmed up" there:

    tools/interleave.py --from "warmed up" "birkhoff bench train --preset small --set residual=plain" "birkhoff bench train --preset small --set residual=mhc"
"""
import argparse
import os
import shlex
import signal
import subprocess
import time


class Turns:
    """One command, stopped but for its turns. `ran`: seconds that count so far."""

    def __init__(self, command, text):
        self.command, self.text, self.ran, self.said = command, text, 0.0, b""
        self.process = subprocess.Popen(shlex.split(command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        os.set_blocking(self.process.stderr.fileno(), False)
        os.killpg(self.process.pid, signal.SIGSTOP)
        self.counts = not text

    def done(self):
        return self.process.returncode is not None

    def turn(self, seconds):
        start = time.monotonic()
        os.killpg(self.process.pid, signal.SIGCONT)
        while not self.done() and time.monotonic() - start < seconds:
            try:
                self.process.wait(timeout=min(0.02, max(0.001, start + seconds - time.monotonic())))
            except subprocess.TimeoutExpired:
                pass
            self.said += self.process.stderr.read() or b""
            if not self.counts and self.text.encode() in self.said:
                self.counts, start, seconds = True, time.monotonic(), seconds - (time.monotonic() - start)
        if self.counts:
            self.ran += time.monotonic() - start
        if not self.done():
            os.killpg(self.process.pid, signal.SIGSTOP)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slice", type=float, default=0.5)
    parser.add_argument("--from", dest="text", help="count from the first line on stderr that holds this")
    parser.add_argument("commands", nargs=2)
    o = parser.parse_args()
    both = [Turns(c, o.text) for c in o.commands]
    try:
        while not all(t.done() for t in both):
            for t in both:
                if not t.done():
                    t.turn(o.slice)
    finally:
        for t in both:
            if not t.done():
                os.killpg(t.process.pid, signal.SIGKILL)
    for t in both:
        if not t.counts:
            raise SystemExit(f"interleave: {t.command!r} never said {o.text!r} on stderr, but: {t.said.decode(errors='replace')[-500:]}")
        print(f"{t.ran:9.2f} s  exit {t.process.returncode}  {t.command}")
    print(f"second over first: {both[1].ran / both[0].ran:.4f}")
    return max(abs(t.process.returncode) for t in both)


if __name__ == "__main__":
    raise SystemExit(main())
