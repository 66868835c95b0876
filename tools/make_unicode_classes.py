#!/usr/bin/env python3
"""Writes src/text/unicode/unicode_classes.inc: runs of code points of one class. Needs the PyPI package unicodedata2 16.0.0
(Unicode 16, the version that the regular expressions of the `tokenizers` library know)."""
import pathlib
import sys

import unicodedata2

# The numbers of enum CharClass in src/text/unicode/unicode.h.
CLASS = {"Nd": 3, "Nl": 4, "No": 5, "Pc": 7}
MAJOR = {"L": 1, "M": 2, "P": 6, "S": 8}


def main():
    if unicodedata2.unidata_version != "16.0.0":
        sys.exit(f"unicodedata2 knows Unicode {unicodedata2.unidata_version}, 16.0.0 is needed")
    runs, last = [], None
    for code in range(0x110000):
        category = unicodedata2.category(chr(code))
        value = CLASS.get(category, MAJOR.get(category[0], 0))
        if value != last:
            runs.append((code << 4) | value)
            last = value
    out = pathlib.Path(__file__).resolve().parent.parent / "src/text/unicode/unicode_classes.inc"
    with out.open("w") as f:
        f.write("// Written by tools/make_unicode_classes.py from Unicode 16.0.0: first code point of a run * 16 + its class.\n")
        for i in range(0, len(runs), 16):
            f.write(", ".join(f"0x{r:x}" for r in runs[i : i + 16]) + ",\n")
    print(len(runs), "runs")


if __name__ == "__main__":
    main()
