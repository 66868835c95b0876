#!/usr/bin/env python3
"""Writes tests/golden/trained: a small Llama trained here on data/shakespeare.txt, and what transformers makes of it in float64.

    tools/make_trained_goldens.py [--program build/release/bin/birkhoff]

Needs PyPI torch 2.15.0, transformers 5.24.0, sentencepiece 0.2.3. Its tokenizer is tests/golden/tokenizers/sentencepiece. Training takes a
minute. golden.json: greedy continuations, the loss of every token of some texts, the last logits of some prefixes. A greedy continuation ends
before the two best logits come closer than 4e-3, so that fp32 arithmetic must choose the same tokens."""
import argparse
import json
import pathlib
import shutil
import subprocess
import tempfile

import sentencepiece
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "tests/golden/trained"
TOKENIZER = ROOT / "tests/golden/tokenizers/sentencepiece"
SETTINGS = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 4,
    "head_dim": 8, "vocab_size": 512, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
    "dtype": "fp32", "steps": 1200, "seq_len": 256, "batch_size": 8, "lr": 6e-3, "min_lr": 6e-4, "warmup_steps": 50, "schedule": "cosine",
    "weight_decay": 0.1, "seed": 1, "eval_every": 300,
}
PROMPTS = ["", "ROMEO.\n", "To be, or not to be", "[Exeunt", "My lord, I"]
TEXTS = ["Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:", "KING.\nWhat news from Wales?",
         "The quick brown fox jumps over the lazy dog, 12 times.", "日本 é"]
SMALLEST_MARGIN, LONGEST = 4e-3, 120


def train(program, folder):
    config = folder / "config.json"
    config.write_text(json.dumps(SETTINGS))
    subprocess.run([program, "train", "--config", config, "--data", ROOT / "data/shakespeare.txt", "--tokenizer", TOKENIZER, "--out", folder / "run",
                    "--token-cache", folder / "tokens"], check=True)
    checkpoint = (folder / "run/latest").resolve()
    OUT.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(checkpoint / "model.safetensors", OUT / "model.safetensors")
    written = json.loads((checkpoint / "config.json").read_text())
    written.pop("training", None)
    (OUT / "config.json").write_text(json.dumps(written, indent=1) + "\n")


@torch.no_grad()
def logits_of(model, ids):
    return model(torch.tensor([ids])).logits[0]


def greedy(model, tokens, prompt):
    ids = [1] + tokens.encode(prompt)
    begin, smallest = len(ids), float("inf")
    while len(ids) - begin < LONGEST:
        best = logits_of(model, ids)[-1].topk(2)
        margin = (best.values[0] - best.values[1]).item()
        if margin < SMALLEST_MARGIN or best.indices[0] == 2:
            break
        smallest = min(smallest, margin)
        ids.append(best.indices[0].item())
    return {"prompt": prompt, "prompt_ids": ids[:begin], "ids": ids[begin:], "text": tokens.decode(ids[1:]), "smallest_margin": round(smallest, 6)}


def token_losses(model, tokens, text):
    ids = [1] + tokens.encode(text)
    losses = torch.nn.functional.cross_entropy(logits_of(model, ids)[:-1], torch.tensor(ids[1:]), reduction="none")
    return {"text": text, "ids": ids, "token_nll": [round(x, 9) for x in losses.tolist()], "mean": round(losses.mean().item(), 9)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/bin/birkhoff")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        train(options.program.resolve(), pathlib.Path(folder))
    model = transformers.AutoModelForCausalLM.from_pretrained(OUT, dtype=torch.float64).eval()
    tokens = sentencepiece.SentencePieceProcessor(model_file=str(TOKENIZER / "tokenizer.model"))
    continuations = [greedy(model, tokens, p) for p in PROMPTS]
    losses = [token_losses(model, tokens, t) for t in TEXTS]
    prefixes = [[1], losses[0]["ids"][:20], continuations[1]["prompt_ids"] + continuations[1]["ids"]]
    lasts = [{"ids": ids, "last": [round(x, 9) for x in logits_of(model, ids)[-1].tolist()]} for ids in prefixes]
    (OUT / "golden.json").write_text(json.dumps({"greedy": continuations, "nll": losses, "logits": lasts}, separators=(",", ":")) + "\n")
    for g in continuations:
        print(len(g["ids"]), g["smallest_margin"], json.dumps(g["text"]))


if __name__ == "__main__":
    main()
