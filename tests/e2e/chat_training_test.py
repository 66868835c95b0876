"""Fine-tuning on conversations: what is learnt, what is lost, and a talk with the result in the run's own format."""
import json
import os
import pty
import random
import subprocess
import unittest

from support import DONE, PROGRAM, REFUSED, USAGE, Case, losses, settings

EOS = "<|end|>"
SPECIALS = (EOS, "<|user|>", "<|assistant|>", "<|system|>", "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")
TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
ANSWER = "Yes, my lord."


class ChatTraining(Case):
    def setUp(self):
        super().setUp()
        self.tokenizer = self.learn(self.dir / "tokenizer", SPECIALS)
        (self.tokenizer / "chat_template.jinja").write_text(TEMPLATE)
        self.chats = self.dir / "chats.jsonl"
        self.write(self.chats, self.conversations(80))

    def learn(self, out, specials):
        flags = [word for s in specials for word in ("--special", s)]
        self.expect(DONE, "train-tokenizer", "--vocab", 400, "--out", out, *flags, self.text)
        config = out / "tokenizer_config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "eos_token": specials[0]}))
        return out

    def write(self, path, lines):
        path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
        return path

    def conversations(self, n):
        """Whatever is asked, the answer is one."""
        lines = [line for line in self.text.read_text().split("\n") if 10 < len(line) < 40]
        choose = random.Random(1)
        turn = lambda: [{"role": "user", "content": choose.choice(lines)}, {"role": "assistant", "content": ANSWER}]
        return [{"messages": turn() + (turn() if choose.random() < 0.5 else [])} for _ in range(n)]

    def fine_tune(self, out, *more, code=DONE, says=(), data=None, tokenizer=True, **changes):
        given = settings(**{"seq_len": 96, "steps": 60, "lr": 1e-2, "eval_every": 10, "batch_size": 4, "checkpoint_every": 0, "vocab_size": 400, **changes})
        own = ["--tokenizer", self.tokenizer] if tokenizer else []
        return self.expect(code, "train", *given, *own, "--data", data or self.chats, "--token-cache", self.dir / "cache", "--out", out, *more, says=says)

    def chat(self, model, *lines, more=()):
        said = subprocess.run([PROGRAM, "chat", "-m", model, "--temp", "0", *map(str, more)], input="".join(line + "\n" for line in lines), capture_output=True, text=True, timeout=120)
        self.assertEqual(said.returncode, 0, said.stderr)
        return said

    def val_losses(self, run):
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return [r["val_loss"] for r in records if r.get("val_loss") is not None]

    def test_held_back_turns_are_learnt_and_the_model_talks(self):
        run = self.dir / "run"
        said = self.fine_tune(run, says=["80 conversations", "of them learnt", "4 samples held back"])
        self.assertNotIn("longer than", said.err)
        falls = self.val_losses(run)
        self.assertLess(falls[-1], 0.1 * falls[0], falls)
        counts = json.loads((run / "run.json").read_text())["conversations"]
        self.assertEqual((counts["conversations"], counts["refused"], counts["cut"], counts["dropped"]), (80, 0, 0, 0))
        self.assertEqual((run / "latest" / "chat_template.jinja").read_text(), TEMPLATE)
        measured = json.loads(self.expect(DONE, "eval", "-m", run, "--data", self.chats, "--validation", "--json").out)
        self.assertAlmostEqual(measured["nats_per_token"], json.loads((run / "run.json").read_text())["final_val_loss"], places=5)
        whole = json.loads(self.expect(DONE, "eval", "-m", run, "--data", self.chats, "--json").out)
        answers = sum(m["role"] == "assistant" for c in self.conversations(80) for m in c["messages"])
        self.assertEqual(whole["bytes"], answers * len(ANSWER))
        talk = self.chat(run, "Speak, speak.", "And now?", f"/save {self.dir / 'said.jsonl'}")
        self.assertEqual(talk.stdout, f"{ANSWER}\n{ANSWER}\n")
        self.assertNotIn("cut off", talk.stderr)  # it learnt to stop
        kept = json.loads((self.dir / "said.jsonl").read_text())["messages"]
        self.assertEqual([m["role"] for m in kept], ["user", "assistant"] * 2)
        self.assertEqual(self.chat(run / "latest", "Speak, speak.").stdout, f"{ANSWER}\n")
        (self.dir / "said.jsonl").write_text(json.dumps({"messages": kept}))  # a file of lines, the last without its end
        more = self.chat(run, "Or not?", f"/save {self.dir / 'said.jsonl'}", "/reset", f"/load {self.dir / 'said.jsonl'}")
        first, second = map(json.loads, (self.dir / "said.jsonl").read_text().splitlines())
        self.assertEqual((first["messages"], len(second["messages"])), (kept, 2), "saving adds, and never replaces")
        self.assertIn("2 messages read", more.stderr)
        self.assertIn("Is a directory", self.chat(run, "Speak.", f"/save {self.dir}").stderr)
        os.mkfifo(self.dir / "fifo")
        self.assertIn("a pipe that nobody reads", self.chat(run, "Speak.", f"/save {self.dir / 'fifo'}").stderr)
        tools = self.write(self.dir / "tools.json", [])
        tools.write_bytes(b"\xef\xbb\xbf[]")
        self.assertIn("is read", self.chat(run, "Speak.", f"/save {tools}", more=["--tools", tools]).stderr)
        for name in ("run.json", "latest/config.json", "latest/model.safetensors", "latest/tokenizer.json"):
            self.assertIn("is read", self.chat(run, "Speak.", f"/save {run / name}").stderr)
        self.assertEqual(tools.read_bytes(), b"\xef\xbb\xbf[]")

    def on_a_terminal(self, model, *arguments, **environment):
        """What a chat about one line writes to a terminal."""
        master, slave = pty.openpty()
        subprocess.run([PROGRAM, "chat", "-m", model, "-n", "5", *arguments], input=b"Speak.\n", stdout=slave, stderr=subprocess.DEVNULL, check=True, timeout=120,
                       env={**os.environ, "TERM": "xterm", **environment})
        os.close(slave)
        said = os.read(master, 65536).decode(errors="replace")
        os.close(master)
        return said

    def test_a_run_on_conversations_resumes_to_the_same_weights(self):
        self.fine_tune(self.dir / "straight", steps=20, schedule="constant")
        run = self.dir / "run"
        self.fine_tune(run, steps=10, schedule="constant")
        (self.tokenizer / "chat_template.jinja").unlink()  # the run depends on nothing outside but its data
        self.resume(run, "--set", "steps=20", says="80 conversations")
        self.assertEqual(losses(run), losses(self.dir / "straight"))
        self.resume(run, "--template", self.chats, code=USAGE, says="keeps the chat format")

    def test_a_base_model_learns_to_answer(self):
        base, run = self.dir / "base", self.dir / "run"
        (self.tokenizer / "chat_template.jinja").unlink()
        given = settings(seq_len=96, batch_size=4, vocab_size=400, steps=5)
        self.expect(DONE, "train", *given, "--tokenizer", self.tokenizer, "--data", self.text, "--token-cache", self.dir / "cache", "--out", base)
        further = lambda out, *more, **options: self.expect(options.pop("code", DONE), "train", "--init", base, "--set", "steps=60", "--set", "seq_len=96", "--set", "lr=1e-2", "--set", "batch_size=4",
                                                            "--set", "eval_every=10", "--data", self.chats, "--out", out, *more, **options)
        further(run, code=REFUSED, says=["no chat template", "--template FILE"])
        self.assertFalse(run.exists())
        own = self.dir / "own.jinja"
        own.write_text(TEMPLATE)
        self.talk_without_a_format(base, own)
        further(run, "--template", own)
        falls = self.val_losses(run)
        self.assertLess(falls[-1], 0.1 * falls[0], falls)
        self.assertEqual(self.chat(run, "Speak, speak.").stdout, f"{ANSWER}\n")
        own.write_text("{% for m in messages %}{{ m.role")
        further(self.dir / "other", "--template", own, code=REFUSED, says="own.jinja")

    def talk_without_a_format(self, base, own):
        """A base model is talked to in a format that is given; what goes wrong names its file and leaves the history alone."""
        self.expect(REFUSED, "chat", "-m", base, says=["no chat template", "--template FILE"])
        self.expect(USAGE, "chat", "-m", base, "--encoder", "v9", says="v9")
        self.expect(REFUSED, "chat", "-m", base, "--template", own, "--tools", self.text, says="text.txt")
        odd = self.write(self.dir / "odd.jsonl", [{"messages": [{"role": "user", "content": "x"}, {"role": 5}]}])
        picky = self.dir / "picky.jinja"
        picky.write_text(TEMPLATE + "{% if enable_thinking %}{{ raise_exception('thoughts are not for me') }}{% endif %}")
        saved = self.dir / "history.jsonl"
        more = ["--template", picky, "-n", 3]
        said = self.chat(base, "Speak.", f"/load {odd}", f"/load {own}", "/think on", "/retry", "Again?", f"/save {saved}", more=more)
        for words in ["odd.jsonl: message 2 of 2", "own.jinja: ", "thoughts are not for me"]:
            self.assertIn(words, said.stderr)
        self.assertEqual([m["role"] for m in json.loads(saved.read_text())["messages"]], ["user", "assistant"])

    def test_formats_without_a_template(self):
        self.tokenizer = self.learn(self.dir / "deepseek", ("<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"))
        run = self.dir / "run"
        self.fine_tune(run, code=REFUSED, says="no chat template")
        self.fine_tune(run, "--encoder", "v4")
        self.assertEqual(json.loads((run / "latest" / "config.json").read_text())["chat_encoder"], "v4")
        self.assertEqual(self.chat(run, "Speak, speak.").stdout, f"{ANSWER}\n")
        self.assertIn("\x1b[2m", self.on_a_terminal(run, "--think"))
        for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            self.assertNotIn("\x1b", self.on_a_terminal(run, "--think", **plain))
        self.resume(run, "--set", "steps=61")
        self.assertEqual(self.chat(run, "Speak, speak.").stdout, f"{ANSWER}\n")
        own = self.dir / "own.jinja"
        own.write_text(TEMPLATE)
        self.expect(DONE, "train", "--init", run, "--set", "steps=2", "--set", "seq_len=96", "--data", self.chats, "--template", own, "--out", self.dir / "further")
        self.assertNotIn("chat_encoder", json.loads((self.dir / "further" / "latest" / "config.json").read_text()))
        self.chat(self.dir / "further", "Speak.", more=["-n", 3])
        self.tokenizer = self.dir / "tokenizer"
        self.fine_tune(self.dir / "other", "--encoder", "v4", code=REFUSED, says="no token of the tokenizer")
        self.fine_tune(self.dir / "third", "--encoder", "v9", code=USAGE, says=["v9", "v3.2"])

    def test_what_is_lost_is_said(self):
        chats = self.conversations(40)
        chats.insert(0, {"messages": [{"role": "user", "content": "alone"}]})
        chats.insert(0, {"messages": [{"role": "user", "content": "long"}, {"role": "assistant", "content": "word " * 200}]})
        chats.insert(0, {"messages": [{"role": "user", "content": 3}, {"role": "assistant", "content": None}]})
        said = self.fine_tune(self.dir / "run", data=self.write(self.dir / "some.jsonl", chats), steps=2, says=["1 samples were longer than seq_len and lost", "1 samples had nothing to learn"])
        self.assertIn("43 conversations", said.err)

    def test_wrong_input_is_named(self):
        good = self.conversations(10)
        refused = lambda lines, *more, says=(), **options: self.fine_tune(self.dir / "run", *more, code=options.pop("code", REFUSED), data=self.write(self.dir / "bad.jsonl", lines), says=says, **options)
        refused([*good, {"msg": []}], says=["bad.jsonl:11", 'no list "messages"'])
        refused([*good, {"text": "t"}], says=["bad.jsonl:11", 'but "text"'])
        refused([{"text": "t"}, *good], says=["bad.jsonl:2", 'but "messages"'])
        refused([*good, '{"messages": [{"role": '], says="bad.jsonl:11")
        refused(['{"messages": [{"role": ', *good], says="bad.jsonl:1")
        refused([{"messages": 3}], says=["bad.jsonl:1", 'no list "messages"'])
        refused([{"messages": [{"role": "user", "content": "x"}]}] * 4, says="no conversation to train on")
        refused(good[:1], says="no conversation to validate")
        refused(good, tokenizer=False, says="need a tokenizer")
        refused(good, "--data", self.text, says=["conversations and documents", "text.txt"])
        refused(good, "--data", f"{self.chats}@2", says=["chats.jsonl@2", "no weight"])
        refused(good, fim_rate=0.5, says=["fim_rate", "not rearranged"])
        self.fine_tune(self.dir / "run", "--template", self.tokenizer / "chat_template.jinja", code=USAGE, data=self.text, says="holds no conversations")
        self.assertFalse((self.dir / "run").exists())


if __name__ == "__main__":
    unittest.main()
