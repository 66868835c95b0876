#!/usr/bin/env python3
"""Models that birkhoff trains and writes as GGUF files, opened by llama.cpp: the same logits.

Not part of the C++ suite; needs a virtual environment of its own, in which llama.cpp is compiled (some minutes):

  python3 -m venv venv && venv/bin/pip install llama-cpp-python numpy safetensors
  venv/bin/python tests/llama_cpp/check_gguf.py --program build/release/bin/birkhoff [--model DIR ...] [TYPE ...]

For each type a small model learns a made-up text for some steps, so that no weight is as at the start; --model compares model directories instead. F32
files must agree to rounding. Of the other types the median over tokens of the RMS difference is printed, both programs with the same file: llama.cpp rounds
activations where birkhoff does not, or in another way. And bytes of text: the ids that llama.cpp makes with the tokenizer in the file. Exit code 1
when anything differs.
"""
import argparse
import ctypes
import json
import pathlib
import subprocess
import sys
import tempfile

import llama_cpp
import numpy as np
from safetensors.numpy import load_file

TOLERANCE = 5e-5  # of logits of size 1 to 10, both sides in fp32
TOKENS = 48
TEXT = "First Citizen:\nWe are accounted poor citizens, 12345 good.\n  Ünïcödé 日本語\n"

COMMON = {"vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96,
          "max_position_embeddings": 512, "initializer_range": 0.05}
MOE = {"n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "n_shared_experts": 2, "first_k_dense_replace": 1}
MLA = {"kv_lora_rank": 32, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32, "num_key_value_heads": 4}
YARN = {"type": "yarn", "factor": 4, "original_max_position_embeddings": 128}
LATENT_YARN = {**YARN, "mscale": 0.7, "mscale_all_dim": 0.7}
V32_YARN = {**YARN, "mscale": 1, "mscale_all_dim": 1}  # llama.cpp takes no other
LLAMA3 = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64}
CONFIGS = {
    "llama": {**COMMON, "model_type": "llama", "rope_scaling": LLAMA3},
    "llama_yarn": {**COMMON, "model_type": "llama", "rope_scaling": YARN, "tie_word_embeddings": True},
    "llama_linear": {**COMMON, "model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2}},
    "qwen2": {**COMMON, "model_type": "qwen2"},
    "qwen3": {**COMMON, "model_type": "qwen3", "head_dim": 32},
    "mixtral": {**{k: v for k, v in COMMON.items() if k != "intermediate_size"}, "model_type": "mixtral", "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
                "norm_topk_prob": True},
    "deepseek": {**COMMON, **MOE, "model_type": "deepseek", "scoring_func": "softmax"},
    "deepseek_v2": {**COMMON, **MOE, **MLA, "model_type": "deepseek_v2", "q_lora_rank": 32, "routed_scaling_factor": 2.5, "rope_scaling": LATENT_YARN},
    "deepseek_v2_lite": {**COMMON, **MOE, **MLA, "model_type": "deepseek_v2", "q_lora_rank": None, "num_hidden_layers": 26},
    "deepseek_v3": {**COMMON, **MOE, **MLA, "model_type": "deepseek_v3", "q_lora_rank": 32, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "n_group": 4,
                    "topk_group": 2, "norm_topk_prob": True, "routed_scaling_factor": 2.5, "rope_scaling": LATENT_YARN},
    "deepseek_v32": {**COMMON, **MOE, **MLA, "model_type": "deepseek_v32", "q_lora_rank": 32, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "n_group": 4,
                     "topk_group": 2, "norm_topk_prob": True, "routed_scaling_factor": 2.5, "rope_scaling": V32_YARN, "index_n_heads": 16,
                     "index_head_dim": 64, "index_topk": 12},
    "deepseek_v4": {"model_type": "deepseek_v4", "residual": "mhc", "vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4,
                    "head_dim": 64, "qk_rope_head_dim": 16, "q_lora_rank": 32, "o_groups": 2, "o_lora_rank": 32, "sliding_window": 16,
                    "compress_ratios": [0, 4, 128, 4, 0], "index_n_heads": 16, "index_head_dim": 64, "index_topk": 6, "n_routed_experts": 8,
                    "num_experts_per_tok": 3, "moe_intermediate_size": 32, "n_shared_experts": 1, "num_hash_layers": 2, "scoring_func": "sqrtsoftplus",
                    "topk_method": "noaux_tc", "norm_topk_prob": True, "routed_scaling_factor": 1.5, "swiglu_limit": 2, "hc_mult": 4,
                    "max_position_embeddings": 512, "initializer_range": 0.05,
                    "rope_scaling": {"type": "yarn", "factor": 16, "original_max_position_embeddings": 64}},
}


def birkhoff(program, *words):
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"birkhoff {' '.join(map(str, words))}\n{done.stderr}")
    return done.stdout


def train(program, config, directory):
    text = directory / "text.txt"
    text.write_text("".join(f"{i * i} is the square of {i}. " for i in range(2000)))
    words = [w for key, value in {"residual": "plain", **config}.items() for w in ("--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}")]
    for key, value in {"steps": 20, "seq_len": 64, "batch_size": 2, "lr": 3e-3}.items():
        words += ["--set", f"{key}={value}"]
    birkhoff(program, "train", "--data", text, "--out", directory / "run", *words)
    birkhoff(program, "convert", "-m", directory / "run", "--out", directory / "model", "--dtype", "bf16")
    return directory / "model"


def our_logits(program, model, ids, directory, *flags):
    (directory / "ids.txt").write_text(" ".join(map(str, ids)))
    out = directory / "logits.safetensors"
    out.unlink(missing_ok=True)
    birkhoff(program, "logits", "-m", model, "--tokens-file", directory / "ids.txt", "--out", out, *flags)
    return load_file(out)["logits"]


class LlamaCpp:
    """A GGUF file in llama.cpp. exact: keys and values are kept in fp32."""

    def __init__(self, path, exact):
        about = llama_cpp.llama_model_default_params()
        about.n_gpu_layers, about.use_extra_bufts = 0, False  # matrices as they lie in the file
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), about)
        if not self.model:
            raise RuntimeError(f"{path}: llama.cpp does not open it")
        context = llama_cpp.llama_context_default_params()
        context.n_ctx, context.n_batch, context.n_ubatch, context.flash_attn_type = 512, 512, 512, 0
        if exact:
            context.type_k = context.type_v = 0
        self.context = llama_cpp.llama_init_from_model(self.model, context)
        self.vocabulary = llama_cpp.llama_model_get_vocab(self.model)

    def logits(self, ids):
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(token), i, 1, 1
            batch.seq_id[i][0] = 0
        if llama_cpp.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")
        size = llama_cpp.llama_vocab_n_tokens(self.vocabulary)
        rows = [np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.context, i), (size,)).copy() for i in range(len(ids))]
        llama_cpp.llama_batch_free(batch)
        return np.array(rows)

    def ids(self, text):
        raw = text.encode()
        out = (ctypes.c_int32 * (len(raw) + 8))()
        count = llama_cpp.llama_tokenize(self.vocabulary, raw, len(raw), out, len(out), True, True)
        return list(out[:count])

    def close(self):
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)


def compare(program, model, directory):
    """A line of what was seen, and whether all is well."""
    size = json.loads((model / "config.json").read_text())["vocab_size"]
    ids = np.random.default_rng(1).integers(3, size - 3, TOKENS)
    want, seen, good = our_logits(program, model, ids, directory, "--dtype", "fp32"), [], True
    for kind in ("f32", "bf16", "q8_0", "q4_0"):
        file = directory / f"{kind}.gguf"
        birkhoff(program, "convert", "-m", model, "--gguf", file, "--gguf-type", kind)
        other = LlamaCpp(file, kind == "f32")
        theirs = other.logits(ids)
        if kind == "f32":
            worst = float(np.abs(theirs - want).max())
            good &= worst <= TOLERANCE
            seen.append(f"f32 {worst:.1e} at most")
            lines = birkhoff_ids(program, file)
            if lines is not None:
                good &= lines == other.ids(TEXT)
                seen.append("ids equal" if lines == other.ids(TEXT) else f"ids {lines} and {other.ids(TEXT)}")
        else:
            ours = our_logits(program, file, ids, directory, "--dtype", "bf16")
            seen.append(f"{kind} {np.median(np.sqrt(((theirs - ours) ** 2).mean(-1))):.3f}")
        other.close()
    return f"{', '.join(seen)} (deviation of logits {want.std():.1f})", good


def birkhoff_ids(program, file):
    done = subprocess.run([program, "tokenize", "-m", str(file), "--jsonl", "--special"], input=json.dumps({"text": TEXT}) + "\n", capture_output=True, text=True)
    return json.loads(done.stdout)["ids"] if done.returncode == 0 else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--model", type=pathlib.Path, action="append", default=[])
    parser.add_argument("types", nargs="*", metavar="TYPE", help=", ".join(CONFIGS))
    args = parser.parse_args()
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    failed = False
    for name in [*args.model] or args.types or CONFIGS:
        with tempfile.TemporaryDirectory() as made:
            directory = pathlib.Path(made)
            model = name if isinstance(name, pathlib.Path) else train(args.program, CONFIGS[name], directory)
            line, good = compare(args.program, model, directory)
            print(f"{name}: {line}{'' if good else '   DIFFERS'}", flush=True)
            failed |= not good
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
