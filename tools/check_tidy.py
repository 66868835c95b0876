#!/usr/bin/env python3
"""Runs clang-tidy 14 over the program and its layers with the checks of .clang-tidy: tools/check_tidy.py [BUILD] (default: build/release, built
with sources put together, which takes a fifth of the time)."""
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def tidy(build, file):
    done = subprocess.run(["clang-tidy-14", "--quiet", "-p", build, "--extra-arg=-Wno-unknown-warning-option", file], capture_output=True, text=True)
    return done.stdout if done.returncode else ""


def main():
    build = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "release"
    files = [e["file"] for e in json.loads((build / "compile_commands.json").read_text())]
    files = [f for f in files if re.search(r"/CMakeFiles/birkhoff\w*\.dir/Unity/", f) and "/tests/" not in f]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [text for text in pool.map(lambda f: tidy(build, f), files) if text]
    print("\n".join(found), end="", file=sys.stderr)
    return 1 if found or not files else 0


if __name__ == "__main__":
    sys.exit(main())
