#!/usr/bin/env python3
"""Fails when an object compiled for one instruction set holds a symbol that the linker might keep for everybody: tools/check_isa_objects.py
[BUILD] (default: build/release).

An inline function or a template compiled for AVX-512 is a weak symbol; the linker keeps one of several, which then runs on machines without
it. So weak symbols of kernels stand in the namespace of their level (src/kernels/isa.h)."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PERSONALITY = "DW.ref.__gxx_personality_v0"  # the address of a function of the C++ library, no code
WEAK = re.compile(r"^[0-9a-f]+ [VWu] (.*)$", re.MULTILINE)


def strangers(folder):
    level = re.fullmatch(r"birkhoff_kernels_(\w+)\.dir", folder.name).group(1)
    for path in sorted(folder.rglob("*.o")):
        symbols = subprocess.run(["nm", "--defined-only", "--demangle", path], capture_output=True, text=True, check=True).stdout
        for name in WEAK.findall(symbols):
            if f"birkhoff::kernels::{level}::" not in name and name != PERSONALITY:
                yield f"{path.name} ({level}): {name}"


def main():
    build = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "release"
    folders = sorted((build / "CMakeFiles").glob("birkhoff_kernels_*.dir"))
    objects = [o for f in folders for o in f.rglob("*.o")]
    if not objects:
        print(f"{build} holds no objects of kernels", file=sys.stderr)
        return 1
    found = [line for f in folders for line in strangers(f)]
    for line in found:
        print(f"weak symbol outside its instruction set's namespace: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
