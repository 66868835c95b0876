#!/usr/bin/env python3
"""GGUF files of cases of the full reference set, written with the package gguf: tests/golden/gguf/models/{qwen2,qwen3,llama3_rope}.

  python3 tools/make_gguf_case_goldens.py --shared DIR        needs numpy, safetensors and gguf

Weights are those of DIR/oracle/cases in F32, names and metadata as llama.cpp's converter has them; ids.txt and golden.safetensors are the first tokens
of the case and their float64 logits, rounded to F32.
"""
import argparse
import json
import pathlib

import gguf
import numpy as np
from safetensors.numpy import load_file, save_file

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "gguf" / "models"
CASES = {"qwen2": "qwen2", "qwen3": "qwen3", "llama3_rope": "llama"}
TOKENS = 12


def neighbours(rows, heads):
    """Rows that rotate together, half a head apart, as neighbours."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def rope_factors(config, dim):
    """What Llama 3's scaling divides the frequencies by, in the order of the pairs."""
    s = config["rope_scaling"]
    wavelength = 2 * np.pi * config["rope_theta"] ** (np.arange(0, dim, 2) / dim)
    low, high, original = s["low_freq_factor"], s["high_freq_factor"], s["original_max_position_embeddings"]
    share = np.clip((original / wavelength - low) / (high - low), 0, 1)
    return (1 / ((1 - share) / s["factor"] + share)).astype(np.float32)


def write_file(path, architecture, config, weights):
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    dim = config.get("head_dim") or config["hidden_size"] // heads
    w = gguf.GGUFWriter(path, architecture)
    w.add_block_count(config["num_hidden_layers"])
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(config["hidden_size"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv)
    w.add_rope_freq_base(config["rope_theta"])
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_tokenizer_model("none")
    w.add_vocab_size(config["vocab_size"])
    if config.get("head_dim"):
        w.add_key_length(dim)
        w.add_value_length(dim)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config["num_hidden_layers"])
    for name, values in sorted(weights.items()):
        if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            values = neighbours(values, heads if "q_proj" in name else kv)
        w.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), np.ascontiguousarray(values, np.float32))
    if config.get("rope_scaling"):
        w.add_tensor("rope_freqs.weight", rope_factors(config, dim))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, required=True)
    shared = parser.parse_args().shared
    for case, architecture in CASES.items():
        source, out = shared / "oracle" / "cases" / case, OUT / case
        out.mkdir(exist_ok=True)
        config = json.loads((source / "config.json").read_text())
        write_file(out / "f32.gguf", architecture, config, load_file(source / "model.safetensors"))
        ids = load_file(source / "inputs.safetensors")["input_ids"][0, :TOKENS]
        (out / "ids.txt").write_text(" ".join(map(str, ids)) + "\n")
        logits = load_file(source / "golden.safetensors")["logits"][0, :TOKENS]
        save_file({"f32": np.ascontiguousarray(logits, np.float32)}, out / "golden.safetensors")


if __name__ == "__main__":
    main()
