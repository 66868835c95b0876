#!/usr/bin/env python3
"""A tokenizer learned by birkhoff and a model trained on it, both opened by transformers: the same ids, logits and greedy text.

Not part of the C++ suite; the virtual environment is that of check_saved_models.py:

  venv/bin/python tests/transformers/check_own_tokenizer.py --program build/release/bin/birkhoff [PATTERN ...]

For each pattern: train-tokenizer on half of data/shakespeare.txt, some steps of training on it, then the newest checkpoint as it lies. Exit code 1 when
anything differs.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
import transformers

from check_saved_models import CONFIGS, TOLERANCE, birkhoff, difference, our_logits, settings

TEXT = pathlib.Path(__file__).resolve().parents[2] / "data" / "shakespeare.txt"
END = "<|endoftext|>"
STRINGS = ["First Citizen:\nSpeak, speak.", "  two  spaces\t\ttabs\n\n\nlines", f"a{END}b {END}", "Ünïcödé 日本語 한국어 🙂👩‍👩‍👧", "12345 3.14 it's I'LL", "", " ", "e\u0301 \u200b\ufeff", "\r\n\r", "def f(x): return x**2 # ok"]
PROMPTS = ["ROMEO:\n", "First Citizen:\nWe are", "O, ", "My lord"]
KINDS = {"v3": "deepseek_v3", "llm": "llama", "coder": "deepseek_v2", "gpt2": "mixtral"}
NEW_TOKENS = 40


def our_ids(program, model, texts, *flags):
    lines = "".join(json.dumps({"text": t}) + "\n" for t in texts)
    done = subprocess.run([program, "tokenize", "-m", str(model), "--jsonl", *flags], input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line)["ids"] for line in done.stdout.splitlines()]


def our_text(program, model, prompt):
    words = [program, "generate", "-m", str(model), "-p", prompt, "-n", str(NEW_TOKENS), "--temp", "0", "--dtype", "fp32"]
    return subprocess.run(words, capture_output=True, check=True).stdout.decode()


def check(pattern, program, folder):
    tokens, run = folder / "tokenizer", folder / "run"
    (folder / "text.txt").write_bytes(TEXT.read_bytes()[: TEXT.stat().st_size // 2])
    birkhoff(program, "train-tokenizer", "--vocab", 1000, "--pattern", pattern, "--eos", END, "--special", END, "--out", tokens, folder / "text.txt")
    config = {key: value for key, value in CONFIGS[KINDS[pattern]].items() if key != "vocab_size"}
    (folder / "config.json").write_text(json.dumps({"model_type": KINDS[pattern], **config, "vocab_size": 1000}))
    birkhoff(program, "train", "--config", folder / "config.json", "--tokenizer", tokens, "--token-cache", folder / "cache", "--data", folder / "text.txt", "--out", run, "--quiet",
             *settings(steps=60, seq_len=64, batch_size=8, lr=3e-3, dtype="fp32"))
    checkpoint = (run / "latest").resolve()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    wrong = []
    theirs = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in STRINGS]
    wrong += [f"ids of {t!r}" for t, a, b in zip(STRINGS, our_ids(program, checkpoint, STRINGS), theirs) if a != b]
    wrong += [f"ids with special tokens of {t!r}" for t, a in zip(STRINGS, our_ids(program, checkpoint, STRINGS, "--special")) if a != tokenizer(t)["input_ids"]]
    if (tokenizer.eos_token_id, model.config.eos_token_id) != (0, 0):
        wrong.append(f"eos: tokenizer {tokenizer.eos_token_id}, model {model.config.eos_token_id}")
    ids = tokenizer(TEXT.read_text()[-2000:])["input_ids"][:200]
    (folder / "ids.txt").write_text(" ".join(map(str, ids)))
    worst = difference(our_logits(program, folder, checkpoint), model(torch.tensor([ids])).logits[0])
    if not worst <= TOLERANCE:
        wrong.append(f"logits, by {worst:.2e}")
    for prompt in PROMPTS:
        fed = tokenizer(prompt, return_tensors="pt")
        out = model.generate(**fed, max_new_tokens=NEW_TOKENS, do_sample=False)[0]
        written = tokenizer.decode(out[fed["input_ids"].shape[1]:], skip_special_tokens=True)
        if our_text(program, checkpoint, prompt).removeprefix(prompt).rstrip("\n") != written.rstrip("\n"):
            wrong.append(f"text after {prompt!r}: {our_text(program, checkpoint, prompt)!r}, {written!r}")
    print(f"{pattern}, {KINDS[pattern]}: {len(STRINGS)} strings, {len(ids)} positions with a largest difference of logits of {worst:.2e}, {len(PROMPTS)} greedy texts; "
          f"{'the same' if not wrong else 'differs: ' + '; '.join(wrong)}", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", default="build/release/bin/birkhoff")
    parser.add_argument("patterns", nargs="*", help=f"default: {' '.join(KINDS)}")
    args = parser.parse_args()
    failed = []
    for pattern in args.patterns or KINDS:
        with tempfile.TemporaryDirectory() as name, torch.no_grad():
            if check(pattern, args.program, pathlib.Path(name)):
                failed.append(pattern)
    if failed:
        sys.exit("not the same: " + ", ".join(failed))


if __name__ == "__main__":
    main()
