#!/usr/bin/env python3
"""Fails when a folder includes a folder that its line in the table does not name (docs/architecture.md, "Folders")."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# The one direction of dependency. A folder may always include itself.
MAY_INCLUDE = {
    "core": "",
    "kernels": "core",
    "io": "core",
    "text": "io core",
    "ops": "kernels core",
    "optim": "ops kernels core",
    "data": "text io core",
    "layers": "ops core",
    "model": "layers ops io core",
    "checkpoint": "model layers optim ops io core",  # ops: files are read through its views of stored weights
    "infer": "checkpoint model text layers ops io core",
    "api": "infer text ops core",
    "eval": "report infer data model text layers ops io core checkpoint",
    "report": "io core",
    "train": "report eval infer checkpoint model layers optim ops data text io core",
    "lab": "train report eval infer checkpoint model layers optim ops data text io core",
}

INCLUDE = re.compile(r'^\s*#include\s+"([^"]+)"', re.MULTILINE)


def violations():
    for folder in sorted(p for p in (ROOT / "src").iterdir() if p.is_dir()):
        if folder.name not in MAY_INCLUDE:
            yield f"src/{folder.name}: not in the table of tools/check_layers.py"
            continue
        allowed = set(MAY_INCLUDE[folder.name].split()) | {folder.name}
        for file in sorted(folder.rglob("*")):
            if file.suffix not in (".h", ".cc"):
                continue
            for target in INCLUDE.findall(file.read_text()):
                level = target.split("/")[0]
                if level not in allowed:
                    yield f"{file.relative_to(ROOT)}: may not include {target} (allowed: {' '.join(sorted(allowed))})"


def main():
    found = list(violations())
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
