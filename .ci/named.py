#!/usr/bin/env python3
"""What a machine has that installed the packages of scripts/packages and no others.

.ci/named.py path DIR        fills DIR with links to their programs: a PATH without anything else
.ci/named.py headers BUILD   fails when something built there included a header of another package"""
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = ("/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/")


def output(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def installed():
    """Name -> what it depends on, as lists of alternatives; and the names that every system has."""
    format = "${Package}\t${Essential}\t${Priority}\t${Pre-Depends}, ${Depends}\t${Provides}\n"
    needs, always = {}, set()
    for line in output("dpkg-query", "-W", "-f", format).splitlines():
        name, essential, priority, depends, provides = line.split("\t")
        needs[name] = [[re.split(r"[ (:]", choice.strip())[0] for choice in one.split("|")] for one in depends.split(",") if one.strip()]
        if essential == "yes" or priority == "required":
            always.add(name)
        for virtual in re.findall(r"[\w.+-]+", re.sub(r"\([^)]*\)", "", provides)):
            needs.setdefault(virtual, [[name]])
    return needs, always


def closure():
    needs, todo = installed()
    todo |= {line.strip() for line in (ROOT / "scripts" / "packages").read_text().splitlines() if line.strip() and line[0] != "#"}
    seen = set()
    while todo:
        name = todo.pop()
        if name in needs and name not in seen:
            seen.add(name)
            todo |= {next((c for c in choices if c in needs), choices[0]) for choices in needs[name]}
    return seen


def files_of(packages):
    real = output("dpkg-query", "-W", "-f", "${Package}\n").split()
    return set(output("dpkg-query", "-L", *sorted(set(real) & packages)).splitlines())


def make_path(folder):
    folder.mkdir(parents=True, exist_ok=True)
    files = {os.path.realpath(f) for f in files_of(closure()) if f.startswith(BIN) and os.path.isfile(f)}
    for place in ("/usr/bin", "/usr/sbin"):
        for entry in os.scandir(place):  # the names that update-alternatives made too
            if os.path.realpath(entry.path) in files and not (folder / entry.name).is_symlink():
                (folder / entry.name).symlink_to(entry.path)


def check_headers(build):
    text = output("ninja", "-C", str(build), "-t", "deps")
    own = (ROOT, build.resolve())
    used = {f for f in re.findall(r"^    (/\S+)", text, re.MULTILINE) if not any(pathlib.Path(f).is_relative_to(o) for o in own)}
    named = {os.path.realpath(f) for f in files_of(closure()) if f.startswith(("/usr/include/", "/usr/lib/"))}
    strange = sorted(f for f in used if os.path.realpath(f) not in named)
    for f in strange:
        print(f"included, and of no package that scripts/packages names: {f}", file=sys.stderr)
    if not used:
        print(f"{build} knows no headers", file=sys.stderr)
    return 1 if strange or not used else 0


def main():
    what, where = sys.argv[1], pathlib.Path(sys.argv[2])
    if what == "path":
        return make_path(where)
    return check_headers(where)


if __name__ == "__main__":
    sys.exit(main())
