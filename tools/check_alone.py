#!/usr/bin/env python3
"""Fails when a header or a source does not compile by itself: tools/check_alone.py [--headers] [--compiler C] (default: clang++-14, which reads
fastest). --headers leaves the sources out, which take twice as long.

Sources are compiled several at a time, where one may live from what another includes; headers are only ever seen behind others. Nothing is
built: the commands are those of a build directory of its own, build/alone, where sources are not put together. Headers of kernels are read
with the flags of AVX-512, those of AMX with its own."""
import argparse
import concurrent.futures
import json
import os
import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "alone"


def configure(compiler):
    options = [f"-DCMAKE_CXX_COMPILER={compiler}", "-DBIRKHOFF_UNITY=OFF", "-DCMAKE_BUILD_TYPE=Release", "-DBIRKHOFF_WIDEST_ISA=amx"]
    done = subprocess.run(["cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(done.stdout)


def commands():
    """Source -> the command it is compiled with, without its file and what it writes; of kernels one for every instruction set."""
    found = {}
    for entry in json.loads((BUILD / "compile_commands.json").read_text()):
        words = shlex.split(entry["command"])
        found.setdefault(pathlib.Path(entry["file"]), []).append(words[:words.index("-o")])
    return found


def nearest(header, of_source):
    """The commands of the sources beside the header, or below the nearest folder above it that has any."""
    for folder in header.parents:
        each = [command for source in sorted(of_source) if source.is_relative_to(folder) for command in of_source[source]]
        if each:
            return each


def jobs(headers_only):
    of_source = commands()
    for source, each in sorted(of_source.items()):
        if not headers_only and len(each) == 1 and source.is_relative_to(ROOT) and not source.is_relative_to(BUILD):
            yield source, each[0]
    for folder in ("src", "apps", "tests", "fuzz"):
        for header in sorted((ROOT / folder).rglob("*.h")):
            each = nearest(header, of_source)
            level = "-DBK_ISA_amx=1" if "amx" in header.name else "-DBK_ISA_avx512=1"
            yield header, next((c for c in each if level in c), each[0])


def compile_alone(job):
    file, command = job
    header = ["-x", "c++", "-Wno-pragma-once-outside-header"] if file.suffix == ".h" else []
    done = subprocess.run([*command, "-w", "-fsyntax-only", *header, file], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return file, done.stdout if done.returncode else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--headers", action="store_true", help="only headers")
    parser.add_argument("--compiler", default="clang++-14")
    options = parser.parse_args()
    configure(options.compiler)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        failed = {file: message for file, message in pool.map(compile_alone, jobs(options.headers)) if message}
    for file, message in failed.items():
        print(f"{file.relative_to(ROOT)} does not compile by itself:\n{message}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
