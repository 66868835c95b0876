#!/usr/bin/env python3
"""Writes tests/golden/gguf/blocks.safetensors: some rows of the full set of block vectors, and IQ1_M, which that lacks.

    tools/make_block_goldens.py ORACLE/gguf/blocks.safetensors

Needs PyPI gguf 0.19.0, numpy, safetensors. Of every type two rows of 512 numbers, those with the most scales that are zero, subnormal or the
largest half float; of the inputs and blocks of the package's quantisers every row, half as long."""
import argparse
import json
import pathlib

import gguf
import numpy
from gguf import GGMLQuantizationType, quants
from safetensors import safe_open
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/gguf/blocks.safetensors"
COLUMNS, QUANTISED = 512, slice(256, 512)  # the second half of the inputs: there the row of zeros and numbers changes over


def iq1_m(rows):
    """Random codes; the scale's four words hold a half float between 2^-12 and 8 in their highest bits."""
    random = numpy.random.default_rng(1)
    blocks = random.integers(0, 256, (rows * COLUMNS // 256, 56), dtype=numpy.uint8)
    scales = (2.0 ** random.uniform(-12, 3, len(blocks))).astype(numpy.float16)
    scales[0] = -6e-8
    words = blocks[:, 48:].copy().view(numpy.uint16)
    for i in range(4):
        words[:, i] = words[:, i] & 0x0FFF | (scales.view(numpy.uint16) >> 4 * i & 15) << 12
    blocks[:, 48:] = words.view(numpy.uint8)
    return blocks.reshape(rows, -1)


def strange(values):
    """How many groups of 16 are zero, tiny or huge."""
    largest = numpy.abs(values.reshape(-1, 16)).max(axis=1)
    return int(((largest < 1e-3) | (largest > 6e4)).sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("full")
    full = safe_open(parser.parse_args().full, "numpy")
    out = {}
    for name in json.loads(full.metadata()["types"]):
        get = lambda what: full.get_tensor(f"{name}.{what}")
        elements, size = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[name]]
        width = lambda columns: columns // elements * size
        blocks, values = get("blocks"), get("values")
        columns = min(COLUMNS, values.shape[1])
        best = sorted(range(len(values)), key=lambda row: -strange(values[row, :columns]))[:2]
        out[name + ".blocks"], out[name + ".values"] = blocks[best, :width(columns)], values[best, :columns]
        if name + ".quant_in" in full.keys() and not name.startswith("TQ"):
            at = slice(width(QUANTISED.start), width(QUANTISED.stop))
            out[name + ".quant_in"], out[name + ".quant_blocks"] = get("quant_in")[:5, QUANTISED], get("quant_blocks")[:5, at]
    out["IQ1_M.blocks"] = iq1_m(2)
    out["IQ1_M.values"] = quants.dequantize(out["IQ1_M.blocks"], GGMLQuantizationType.IQ1_M)
    OUT.parent.mkdir(exist_ok=True)
    save_file({name: numpy.ascontiguousarray(t) for name, t in out.items()}, OUT, {"gguf": "0.19.0"})
    print(OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
