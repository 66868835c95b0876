"""Text in and out: a tokenizer learned from data, a model trained on it, resumed, asked to write and measured."""
import json
import shutil
import subprocess
import unittest

from support import DONE, PROGRAM, REFUSED, USAGE, Case, losses, settings, weights

FIM = ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"]
EOS = "<｜end▁of▁sentence｜>"


def without_vocabulary(**changes):
    words = settings(**changes)
    at = next(i for i, w in enumerate(words) if w.startswith("vocab_size="))
    return words[: at - 1] + words[at + 1 :]


class Text(Case):
    def setUp(self):
        super().setUp()
        self.tokenizer = self.dir / "tokenizer"
        self.cache = self.dir / "cache"
        self.learn(self.tokenizer)

    def learn(self, out, code=DONE, specials=(EOS, *FIM), vocab=400, says=()):
        flags = [word for s in specials for word in ("--special", s)]
        return self.expect(code, "train-tokenizer", "--vocab", vocab, "--out", out, *flags, self.text, says=says)

    def train_text(self, out, *more, code=DONE, says=(), **changes):
        return self.expect(code, "train", *without_vocabulary(**changes), "--data", self.text, "--tokenizer", self.tokenizer, "--token-cache", self.cache, "--out", out, *more, says=says)

    def test_the_same_text_gives_the_same_tokenizer(self):
        self.learn(self.dir / "again")
        for name in ["tokenizer.json", "tokenizer_config.json"]:
            self.assertEqual((self.tokenizer / name).read_bytes(), (self.dir / "again" / name).read_bytes())
        self.learn(self.tokenizer, code=REFUSED, says="is there already")
        self.learn(self.dir / "small", code=REFUSED, vocab=255, says="too small")
        self.learn(self.dir / "empty", code=REFUSED, specials=(EOS, ""), says="empty")
        self.learn(self.dir / "byte", code=REFUSED, specials=(EOS, "Ġ"), says="byte 32")
        self.assertFalse((self.dir / "empty").exists() or (self.dir / "byte").exists())

    def test_tokenize_both_ways(self):
        lines = [{"text": t} for t in ["First Citizen: speak", f"a{EOS}b", "é 日本\n\n", ""]]
        ask = lambda rows, *flags: [json.loads(line) for line in self.program_lines(rows, "tokenize", "-m", self.tokenizer, "--jsonl", *flags)]
        ids = ask(lines)
        self.assertEqual(ids[1]["ids"].count(0), 1)
        self.assertEqual(ask(ids, "--decode"), lines)
        self.expect(USAGE, "tokenize", "--jsonl", says="which tokenizer")
        blank = subprocess.run([PROGRAM, "tokenize", "-m", self.tokenizer, "--jsonl"], input=' \t\r\n\n{"text": "a"}\n', capture_output=True, text=True, check=True, timeout=60)
        self.assertEqual(len(blank.stdout.splitlines()), 1)

    def program_lines(self, rows, *arguments):
        text = "".join(json.dumps(r) + "\n" for r in rows)
        return subprocess.run([PROGRAM, *map(str, arguments)], input=text, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()

    def test_a_model_of_tokens_is_trained_resumed_and_writes(self):
        self.train_text(self.dir / "straight", schedule="constant")
        run = self.dir / "run"
        self.train_text(run, steps=10, schedule="constant")
        self.assertEqual(len(list(self.cache.iterdir())), 1)
        shutil.rmtree(self.cache)
        shutil.move(self.tokenizer, self.dir / "elsewhere")  # the run depends on nothing outside
        self.resume(run, "--set", "steps=20", "--token-cache", self.cache)
        self.assertEqual(losses(run), losses(self.dir / "straight"))
        self.assertEqual(weights(run)[0], weights(self.dir / "straight")[0])
        config = json.loads((run / "latest" / "config.json").read_text())
        self.assertEqual((config["vocab_size"], config["eos_token_id"]), (400, 0))
        self.assertTrue((run / "latest" / "tokenizer.json").exists())
        written = self.expect(DONE, "generate", "-m", run, "-p", "First", "-n", "30")
        written.stdout.decode()  # is UTF-8
        again = self.expect(DONE, "generate", "-m", run / "latest", "-p", "First", "-n", "30")
        self.assertEqual(again.stdout, written.stdout)
        self.expect(DONE, "generate", "-m", run, "--fim", "First", "Citizen", "-n", "5")
        measured = json.loads(self.expect(DONE, "eval", "-m", run, "--data", self.text, "--json").out)
        self.assertAlmostEqual(measured["nats_per_byte"] * measured["bytes"], measured["nats_per_token"] * measured["tokens"], places=3)
        self.assertGreater(measured["bytes"], measured["tokens"])
        self.resume(run, "--tokenizer", run, code=USAGE, says="keeps the tokenizer")

    def test_jsonl_and_fill_in_the_middle(self):
        lines = self.text.read_text().split("\n\n")
        self.text = self.dir / "text.jsonl"
        self.text.write_text("".join(json.dumps({"text": t}) + "\n" for t in lines))
        self.train_text(self.dir / "run", steps=5, fim_rate=0.5)
        with self.text.open("a") as f:
            f.write('{"txt": 1}\n')
        self.train_text(self.dir / "other", code=REFUSED, says=[f"text.jsonl:{len(lines) + 1}", "text"])

    def test_what_does_not_fit_is_refused(self):
        self.train(self.dir / "a", "--tokenizer", self.tokenizer, code=REFUSED, says=["vocab_size: 256 is less than the 400 tokens"])
        self.train_text(self.dir / "b", code=REFUSED, fim_rate=1.5, says="fim_rate")
        self.expect(USAGE, "train", *without_vocabulary(), "--data", self.text, "--tokenizer", self.tokenizer / "tokenizer.json", "--out", self.dir / "b", says=["is a file", "directory"])
        self.tokenizer = self.dir / "bare"
        self.learn(self.tokenizer, specials=())
        self.train_text(self.dir / "c", code=REFUSED, says="end token")
        self.tokenizer = self.dir / "plain"
        self.learn(self.tokenizer, specials=(EOS,))
        self.train_text(self.dir / "d", code=REFUSED, fim_rate=0.5, says="filling in the middle")
        for name in "abcd":
            self.assertFalse((self.dir / name).exists())


if __name__ == "__main__":
    unittest.main()
