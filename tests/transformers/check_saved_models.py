#!/usr/bin/env python3
"""Models that birkhoff trains and saves, opened by transformers: the same logits. And adapters opened by PEFT.

Not part of the C++ suite; needs a virtual environment of its own:

  python3 -m venv venv && venv/bin/pip install torch transformers peft safetensors
  venv/bin/python tests/transformers/check_saved_models.py --program build/release/bin/birkhoff [--oracle DIR] [TYPE ...]

For each model type a small model learns a made-up text for some steps, so that no weight is as at the start, and its checkpoint is opened from
where birkhoff wrote it. `deepseek` has no class in transformers: --oracle names a directory with ref_deepseek_moe.py. For the types in ADAPTERS a
LoRA run follows, and its adapter is compared through PEFT and through `--adapter`. Prints the largest difference of each comparison; exit code 1
when one is above the tolerance. Prediction modules have no counterpart in transformers; tests/model/mtp_test.cc compares them with goldens.

An indexer of few heads gives many keys the score 0 (ReLU of every head), and a selection that ends among them is a choice between equals: birkhoff
takes the earliest key, torch.topk promises no order. So of types with an indexer the tokens before the first such choice are compared.
"""
import argparse
import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file

TOLERANCE = 1e-4  # of logits of size 1 to 10, both sides in fp32
TOKENS = 200
EQUAL = 1e-6  # scores of an indexer, relative to 1 or themselves

COMMON = {"vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 512,
          "initializer_range": 0.05}
MOE = {"n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 24}
MLA = {"q_lora_rank": 40, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
YARN = {"type": "yarn", "factor": 4, "original_max_position_embeddings": 128, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 0.7}
QWEN_YARN = {"type": "yarn", "factor": 4, "original_max_position_embeddings": 128}
V3 = {**COMMON, **MOE, **MLA, "intermediate_size": 96, "first_k_dense_replace": 1, "n_shared_experts": 1, "scoring_func": "sigmoid",
      "topk_method": "noaux_tc", "n_group": 4, "topk_group": 2, "norm_topk_prob": True, "routed_scaling_factor": 2.5, "rope_scaling": YARN}
CONFIGS = {
    "llama": {**COMMON, "num_key_value_heads": 2, "intermediate_size": 160, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama3": {**COMMON, "model_type": "llama", "num_key_value_heads": 2, "intermediate_size": 160, "tie_word_embeddings": True,
               "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 128}},
    "qwen2": {**COMMON, "num_key_value_heads": 2, "intermediate_size": 160, "rope_scaling": QWEN_YARN},
    "qwen3": {**COMMON, "num_key_value_heads": 2, "head_dim": 24, "intermediate_size": 160, "rope_scaling": {**QWEN_YARN, "attn_factor": 0.8}},
    "mixtral": {**COMMON, "num_key_value_heads": 2, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "norm_topk_prob": True},
    "deepseek": {**COMMON, **MOE, "intermediate_size": 96, "first_k_dense_replace": 1, "n_shared_experts": 2},
    "deepseek_v2": {**COMMON, **MOE, **MLA, "intermediate_size": 96, "first_k_dense_replace": 1, "n_shared_experts": 2, "topk_method": "group_limited_greedy",
                    "n_group": 4, "topk_group": 2, "routed_scaling_factor": 4.0, "rope_scaling": YARN},
    "deepseek_v3": V3,
    "deepseek_v32": {**V3, "index_n_heads": 64, "index_head_dim": 16, "index_topk": 24},
    "deepseek_v4": {**COMMON, "num_hidden_layers": 5, "num_key_value_heads": 1, "head_dim": 32, "qk_rope_head_dim": 8, "q_lora_rank": 32, "o_groups": 2,
                    "o_lora_rank": 16, "moe_intermediate_size": 24, "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 3, "num_hash_layers": 2,
                    "scoring_func": "sqrtsoftplus", "topk_method": "noaux_tc", "norm_topk_prob": True, "routed_scaling_factor": 1.5, "swiglu_limit": 2.0,
                    "sliding_window": 16, "compress_ratios": [0, 4, 128, 4, 0], "compress_rope_theta": 160000, "index_n_heads": 8, "index_head_dim": 16,
                    "index_topk": 6, "residual": "mhc", "hc_mult": 4},
}
ADAPTERS = {"llama": "", "qwen2": "", "qwen3": "", "mixtral": "", "deepseek_v2": "", "deepseek_v3": "q_b_proj,kv_a_proj_with_mqa,kv_b_proj,o_proj,up_proj"}


def birkhoff(program, *words):
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"birkhoff {' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stderr


def settings(**values):
    return [word for key, value in values.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]


def our_logits(program, folder, model, *flags):
    out = folder / "logits.safetensors"
    birkhoff(program, "logits", "-m", model, "--tokens-file", folder / "ids.txt", "--dtype", "fp32", "--out", out, *flags)
    return load_file(out)["logits"].clone()  # the file is written again by the next call


def reference_model(kind, checkpoint, oracle):
    """The model of another implementation with the tensors of the checkpoint, each exactly once."""
    if kind != "deepseek":
        model, report = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if report[what]:
                raise RuntimeError(f"{what}: {sorted(map(str, report[what]))[:5]}")
        return model.eval(), lambda ids: model(ids[None]).logits[0]
    sys.path.insert(0, str(oracle))
    from ref_deepseek_moe import DeepseekMoE

    model = DeepseekMoE(json.loads((checkpoint / "config.json").read_text()))
    model.load_state_dict(load_file(checkpoint / "model.safetensors"))
    return model.eval(), lambda ids: model(ids[None])[0]


@contextlib.contextmanager
def topk_replaced(replacement):
    own = torch.Tensor.topk
    torch.Tensor.topk = lambda scores, k, dim=-1: replacement(own, scores, k, dim)
    try:
        yield
    finally:
        torch.Tensor.topk = own


def check_indexer(kind, forward, ids, ours, report):
    """Compares the tokens before the first whose selection ends among scores that are equal but for rounding; nothing later reaches them."""
    tied = torch.zeros(len(ids), dtype=torch.bool)

    def watch(own, scores, k, dim):
        chosen = own(scores, min(k + 1, scores.shape[dim]), dim)
        if scores.shape[-2] == len(ids) and chosen.values.shape[dim] > k:
            last, following = chosen.values[..., k - 1], chosen.values[..., k]
            equal = (last - following <= EQUAL * last.abs().clamp(min=1)) & (following > torch.finfo(last.dtype).min / 2)
            tied.logical_or_(equal.reshape(-1, len(ids)).any(0))
        return own(scores, k, dim)

    with topk_replaced(watch):
        theirs = forward(ids)
    first = int(tied.nonzero()[0]) if tied.any() else len(ids)
    differ = (ours - theirs).abs().amax(-1) > TOLERANCE
    report(f"{kind}, {first} tokens before the first choice among equals", difference(ours[:first], theirs[:first]), f"; {tied.sum()} of {len(ids)} have such a choice, {differ.sum()} differ")


def difference(a, b):
    return (a - b).abs().max().item()


def check_adapter(kind, program, folder, run, model, ids, report):
    import peft

    lora = folder / "lora"
    targets = {"lora__targets": ADAPTERS[kind]} if ADAPTERS[kind] else {}
    birkhoff(program, "train", "--init", run, "--data", folder / "text.txt", "--out", lora, "--quiet",
             *settings(steps=20, seq_len=64, batch_size=2, lr=1e-2, dtype="fp32", lora__rank=4, lora__alpha=8, **targets))
    ours = our_logits(program, folder, run, "--adapter", lora)
    with_adapter = peft.PeftModel.from_pretrained(model, lora / "adapter").eval()
    theirs = with_adapter(ids[None]).logits[0]
    base = our_logits(program, folder, run)
    report(f"{kind}: PEFT", difference(ours, theirs), f"; the adapter moves logits by {difference(ours, base):.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", default="build/release/bin/birkhoff")
    parser.add_argument("--oracle", type=pathlib.Path, help="directory of ref_deepseek_moe.py")
    parser.add_argument("types", nargs="*", help=f"default: {' '.join(CONFIGS)}")
    args = parser.parse_args()
    torch.manual_seed(1)
    failed = []

    def report(name, worst, note=""):
        print(f"{name}: largest difference of logits {worst:.2e}{note}", flush=True)
        if not worst <= TOLERANCE:
            failed.append(name)

    for kind in args.types or CONFIGS:
        if kind == "deepseek" and not args.oracle:
            print("deepseek: left out, --oracle was not given")
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "text.txt").write_text("".join(f"{i} times {i % 13} is {i * (i % 13)}.\n" for i in range(3000)))
            (folder / "config.json").write_text(json.dumps({"model_type": kind, **CONFIGS[kind]}))
            ids = torch.randint(0, 256, (TOKENS,))
            (folder / "ids.txt").write_text(" ".join(map(str, ids.tolist())))
            try:
                birkhoff(args.program, "train", "--config", folder / "config.json", "--data", folder / "text.txt", "--out", folder / "run", "--quiet",
                         *settings(steps=20, seq_len=64, batch_size=2, lr=3e-3, dtype="fp32"))
                run = folder / "run"
                checkpoint = (run / "latest").resolve()
                with torch.no_grad():
                    model, forward = reference_model(kind, checkpoint, args.oracle)
                    ours = our_logits(args.program, folder, run)
                    if "index_topk" in CONFIGS[kind]:
                        check_indexer(kind, forward, ids, ours, report)
                    else:
                        report(kind, difference(ours, forward(ids)))
                    if kind in ADAPTERS:
                        check_adapter(kind, args.program, folder, run, model, ids, report)
            except Exception as error:  # one type that fails does not hide the others
                print(f"{kind}: {type(error).__name__}: {error}")
                failed.append(kind)
    if failed:
        sys.exit("not the same: " + ", ".join(failed))


if __name__ == "__main__":
    main()
