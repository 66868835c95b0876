#!/usr/bin/env python3
"""Writes a model directory of random bf16 weights, for measurements: make_random_model.py --out DIR [--gib 4].

A Llama-type model (hidden size 2560) with as many layers as the size asks for. Weights have magnitudes between 2^-7 and 2^-5, norms are 1."""
import argparse
import json
import pathlib
import random
import struct

DIM, INTER, HEADS, VOCAB = 2560, 6912, 20, 32000
SIGNED_SMALL = bytes(0x3C if b < 128 else 0xBC for b in range(256))  # upper bytes of bf16


def tensors(layers):
    yield "model.embed_tokens.weight", (VOCAB, DIM)
    for i in range(layers):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (DIM,)
        for name in "qkvo":
            yield f"{p}self_attn.{name}_proj.weight", (DIM, DIM)
        yield p + "post_attention_layernorm.weight", (DIM,)
        yield p + "mlp.gate_proj.weight", (INTER, DIM)
        yield p + "mlp.up_proj.weight", (INTER, DIM)
        yield p + "mlp.down_proj.weight", (DIM, INTER)
    yield "model.norm.weight", (DIM,)
    yield "lm_head.weight", (VOCAB, DIM)


def size(shape):
    n = 1
    for d in shape:
        n *= d
    return n


def values(rng, shape):
    n = size(shape)
    if len(shape) == 1:
        yield b"\x80\x3f" * n
        return
    piece = 1 << 22
    for start in range(0, n, piece):
        count = min(piece, n - start)
        data = bytearray(2 * count)
        data[0::2] = rng.randbytes(count)
        data[1::2] = rng.randbytes(count).translate(SIGNED_SMALL)
        yield data


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--out", required=True, type=pathlib.Path)
    p.add_argument("--gib", type=float, default=4)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    a.out.mkdir(parents=True)
    fixed, layer = 2 * VOCAB * DIM, 4 * DIM * DIM + 3 * DIM * INTER
    layers = max(1, round((a.gib * 2**29 - fixed) / layer))
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors(layers):
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + 2 * size(shape)]}
        offset += 2 * size(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = random.Random(a.seed)
    with open(a.out / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, shape in tensors(layers):
            for piece in values(rng, shape):
                f.write(piece)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": DIM, "intermediate_size": INTER,
              "num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "max_position_embeddings": 4096,
              "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "torch_dtype": "bfloat16"}
    (a.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"{a.out}: {layers} layers, {offset / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
