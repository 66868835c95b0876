#!/usr/bin/env python3
"""Lists every backward of src/ops and src/layers that no test compares with a derivative; there must be none.

A backward is a function declared in a header of src/ops and defined in a source there whose name ends in _backward (or is in ALSO), and
every layer's `backward`. It counts as checked when a test source of the same folder calls it and takes a derivative: by complex steps, by central differences, from
recorded vector-Jacobian products, or as the transpose of a linear map."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Gradients under other names.
ALSO = {"gemm_weight_grad", "grouped_weight_grad", "site_retreat", "balance_losses", "rope_apply"}

# Parts of another backward: the public pass that runs them and is checked.
PART_OF = {"site_maps_backward": "site_retreat", "head_weights_backward": "site_close_backward", "Indexer::backward": "SparseMla::backward",
           "Compressor::backward": "CompressedAttention::backward", "EntryIndexer::backward": "CompressedAttention::backward"}

DERIVATIVE = re.compile(r"complex_step|complex_gradient|central_|expect_transposed|_vectors|tangent|reference_gradient|inverse")
DECLARED = re.compile(r"^(?:void|double|LossSums)\s+(\w+)\(", re.MULTILINE)
LAYER = re.compile(r"^struct (\w+) \{(.*?)^\};", re.MULTILINE | re.DOTALL)


def sources(folder):
    """Test sources of a folder with what they include of tests/support, as one text each."""
    for test in sorted((ROOT / "tests" / folder).rglob("*_test.cc")):
        text = test.read_text()
        for support in re.findall(r'#include "(support/\w+\.h)"', text):
            text += (ROOT / "tests" / support).read_text()
        yield test, text


def checked(folder, call):
    return any(re.search(call, text) and DERIVATIVE.search(text) for _, text in sources(folder))


def backwards():
    """(name, folder of its tests, pattern of a call)"""
    defined = set(DECLARED.findall("".join(p.read_text() for p in (ROOT / "src" / "ops").rglob("*.cc"))))
    for header in sorted((ROOT / "src" / "ops").rglob("*.h")):
        for name in DECLARED.findall(header.read_text()):
            if name in defined and (name.endswith("_backward") or name in ALSO):
                yield name, "ops", rf"\b{PART_OF.get(name, name)}\("
    for header in sorted((ROOT / "src" / "layers").rglob("*.h")):
        for name, body in LAYER.findall(header.read_text()):
            if re.search(r"static void backward\(", body):
                layer = f"{name}::backward"
                yield layer, "layers", rf"\b{PART_OF.get(layer, layer)}\("


def main():
    found = list(backwards())
    missing = [f"{name}: no gradient check in tests/{folder}" for name, folder, call in found if not checked(folder, call)]
    for line in missing:
        print(line, file=sys.stderr)
    print(f"{len(found)} backwards, without a gradient check: {len(missing) or 'none'}")
    return 1 if missing or len(found) < 20 else 0


if __name__ == "__main__":
    sys.exit(main())
