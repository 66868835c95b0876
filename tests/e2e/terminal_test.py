"""The program as a citizen of a shell: output that cannot be written, numbers of flags, help, version, environment."""
import json
import os
import re
import subprocess
import time
import unittest

from support import DONE, PROGRAM, REFUSED, SMALL, USAGE, Case, settings

CLOSED_PIPE = 141


class Output(Case):
    def verbs(self):
        """What each verb that prints is called with, and its input."""
        run, tokenizer = self.dir / "run", self.dir / "tokenizer"
        self.train(run, change={"steps": 1})
        self.expect(DONE, "train-tokenizer", "--vocab", 260, "--out", tokenizer, self.text)
        line = b'{"messages": [{"role": "user", "content": "a"}]}\n'
        return [(["tokenize", "--tokenizer", tokenizer], b"to be"), (["tokenize", "--tokenizer", tokenizer], b"to be " * 100000),
                (["tokenize", "--tokenizer", tokenizer, "--jsonl"], b'{"text": "to be"}\n'), (["eval", "-m", run, "--data", self.text, "--validation"], b""),
                (["generate", "-m", run, "-p", "a", "-n", 5], b""), (["inspect", "demo", "--json"], b""), (["inspect", "demo"], b""), (["inspect", run, "--verify"], b""),
                (["chat-format", "--encoder", "v4"], line), (["chat-parse", "--encoder", "v4"], b'{"text": "a"}\n'), (["plot", run, "--out", self.dir / "p.html"], b""),
                (["--help"], b""), (["train", "--help"], b""), (["help", "train"], b""), (["--version"], b"")]

    def test_a_full_disk_and_a_closed_descriptor(self):
        for arguments, given in self.verbs():
            words = [PROGRAM, *map(str, arguments)]
            with self.subTest(" ".join(words[1:])), open("/dev/full", "wb") as full:
                done = subprocess.run(words, input=given, stdout=full, stderr=subprocess.PIPE, timeout=60)
                self.assertEqual(done.returncode, REFUSED, done.stderr)
                self.assertIn(b"[file] standard output: cannot be written: No space left on device", done.stderr)
                done = subprocess.run(["bash", "-c", 'exec "$@" >&-', "bash", *words], input=given, stderr=subprocess.PIPE, timeout=60)
                self.assertEqual(done.returncode, REFUSED, done.stderr)
                self.assertIn(b"[file] standard output: is closed", done.stderr)

    def test_a_reader_that_goes(self):
        for arguments, given in self.verbs():
            words = [PROGRAM, *map(str, arguments)]
            with self.subTest(" ".join(words[1:])):
                reader, writer = os.pipe()
                os.close(reader)
                done = subprocess.run(words, input=given, stdout=writer, stderr=subprocess.PIPE, timeout=60)
                os.close(writer)
                self.assertEqual((done.returncode, done.stderr.replace(b"\n", b" ")), (CLOSED_PIPE, b""))

    def test_streams_end_with_their_reader(self):
        tokenizer = self.dir / "tokenizer"
        self.expect(DONE, "train-tokenizer", "--vocab", 260, "--out", tokenizer, self.text)
        for arguments, line in ((["tokenize", "--jsonl", "--tokenizer", tokenizer], '{"text": "to be"}'), (["chat-parse", "--encoder", "v4"], '{"text": "a"}')):
            with self.subTest(arguments[0]):
                shell = f"yes '{line}' | {PROGRAM} {' '.join(map(str, arguments))} | head -1; echo ${{PIPESTATUS[1]}}"
                done = subprocess.run(["bash", "-c", shell], capture_output=True, timeout=30)
                self.assertEqual((done.stdout.split(b"\n")[-2], done.stderr), (str(CLOSED_PIPE).encode(), b""))

    def test_each_answer_comes_before_the_next_question(self):
        process = subprocess.Popen([PROGRAM, "chat-parse", "--encoder", "v4"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for text in ("one", "two"):
            process.stdin.write(b'{"text": "%s"}\n' % text.encode())
            process.stdin.flush()
            self.assertIn(text.encode(), process.stdout.readline())
        process.stdin.close()
        self.assertEqual(process.wait(timeout=20), DONE)
        process.stdout.close()

    def test_an_input_that_cannot_be_read(self):
        tokenizer = self.dir / "tokenizer"
        self.expect(DONE, "train-tokenizer", "--vocab", 260, "--out", tokenizer, self.text)
        for arguments in (["tokenize", "--tokenizer", tokenizer], ["tokenize", "--tokenizer", tokenizer, "--jsonl"], ["chat-format", "--encoder", "v4"], ["chat-parse", "--encoder", "v4"]):
            with self.subTest(arguments):
                folder = os.open(self.dir, os.O_RDONLY)
                done = subprocess.run([PROGRAM, *map(str, arguments)], stdin=folder, capture_output=True, timeout=60)
                os.close(folder)
                self.assertEqual((done.returncode, done.stdout), (REFUSED, b""))
                self.assertIn(b"[file] standard input: Is a directory", done.stderr)

    def test_files_never_get_the_number_of_a_closed_stream(self):
        run = self.dir / "run"
        words = [PROGRAM, "train", *settings(steps=1), "--data", str(self.text), "--out", str(run)]
        done = subprocess.run(["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", *map(str, words)], timeout=60)
        self.assertEqual(done.returncode, DONE)
        self.expect(DONE, "inspect", run, "--verify")

    def test_training_survives_its_log(self):
        reader, writer = os.pipe()
        os.close(reader)
        run = self.dir / "run"
        words = [PROGRAM, "train", *settings(steps=5), "--data", str(self.text), "--out", str(run)]
        done = subprocess.run(list(map(str, words)), stderr=writer, timeout=60)
        os.close(writer)
        self.assertEqual(done.returncode, DONE)
        self.expect(DONE, "inspect", run, "--verify")


class CommandLine(Case):
    def test_numbers(self):
        generate, train = ["generate", "-m", self.dir], ["train", *settings(), "--data", self.text, "--out", self.dir / "run"]
        plan = ["plan", "demo", "--tokens", "1e6"]
        for arguments, allowed, given in [
            ([*generate, "--seed", "-1"], "from 0 to 18446744073709551615", "-1"), ([*generate, "--seed", 2**64], "from 0 to 18446744073709551615", str(2**64)),
            ([*generate, "--seed", "0x10"], "a whole number", "0x10"), ([*generate, "-n", "1e3"], "a whole number", "1e3"), ([*generate, "-n", ""], "a whole number", ""),
            ([*generate, "--temp", "nan"], "a number", "nan"), ([*generate, "--temp", "1.5x"], "a number", "1.5x"), ([*generate, "--temp", "0x1"], "a number", "0x1"),
            ([*train, "--threads", ""], "from 1 to 1024", ""), ([*train, "--threads", 0], "from 1 to 1024", "0"), ([*train, "--threads", -1], "from 1 to 1024", "-1"),
            ([*train, "--threads", 100000], "from 1 to 1024", "100000"), (["bench", "train", "--steps", 0], "from 1 to", "0"), (["bench", "infer", "-m", "x", "--prompt", -1], "from 0 to", "-1"),
            (["compare", "--out", "x", "--seeds", 0], "from 1 to 1000", "0"), ([*plan, "--machines", 0], "from 1 to 1000000", "0"), ([*plan, "--bandwidth", "inf"], "a number from", "inf"),
            ([*plan, "--memory", 0], "a number from 0.001 to", "0"), (["plan", "demo", "--tokens", 0], "from 1 to 1e+18", "0")]:
            with self.subTest(arguments):
                self.expect(USAGE, *arguments, says=["must be", allowed, f'is "{given}"'])
        self.assertFalse((self.dir / "run").exists())
        self.expect(REFUSED, *generate, "--seed", 2**64 - 1, says="config.json")

    def test_the_environment_stands_in_for_flags(self):
        train = ["train", *settings(steps=1), "--data", self.text, "--out", self.dir / "run"]
        self.expect(USAGE, *train, says=["must be a whole number", "BIRKHOFF_THREADS"], env={**os.environ, "BIRKHOFF_THREADS": "many"})
        self.expect(DONE, *train, "--threads", 1, env={**os.environ, "BIRKHOFF_THREADS": "many"})
        self.expect(DONE, "inspect", "demo", env={**os.environ, "BIRKHOFF_THREADS": "many"})
        self.assertIn('"threads": 1,', (self.dir / "run" / "run.json").read_text())
        generate = ["generate", "-m", self.dir / "run", "-p", "a"]
        env = {**os.environ, "BIRKHOFF_COUNT": "7", "BIRKHOFF_OUT": "/nowhere", "BIRKHOFF_SEED": "3"}
        self.assertEqual(len(self.expect(DONE, *generate, env=env).stdout), 8)
        self.assertEqual(len(self.expect(DONE, *generate, "-n", 3, env=env).stdout), 4)

    def test_help_and_version(self):
        verbs = re.findall(r"^  ([a-z-]+) ", self.expect(DONE, "--help").out.split("Subcommands:")[1], re.M)
        self.assertGreater(len(verbs), 15)
        self.assertEqual(self.expect(DONE, "help").out, self.expect(DONE, "--help").out)
        for verb in verbs:
            shown = self.expect(DONE, "help", verb).out
            self.assertEqual(shown, self.expect(DONE, verb, "--help").out)
            self.assertNotIn("--set TEXT", shown)
            for line in shown.splitlines():
                self.assertNotRegex(line, r"^  -.*TEXT \.\.\.", "a flag takes one value")
            if verb != "help":
                self.assertIn("Examples:\n  ", shown)
        self.assertIn("--steps", self.expect(DONE, "help", "bench", "train").out)
        self.expect(USAGE, "help", "trian", says='did you mean "train"')
        version = self.expect(DONE, "--version").out
        self.assertRegex(version, r"^birkhoff \d+\.\d+\.\d+( \(commit [0-9a-f]+\))?\ncompiler  (GCC|Clang) .*\nkernels .*(scalar|avx2|avx512|amx)")
        self.assertEqual(version, self.expect(DONE, "-V").out)

    def test_long_values_are_cut(self):
        (self.dir / "config.json").write_text('{"model_type": "%s"}' % ("x" * 3000000))
        said = self.expect(REFUSED, "inspect", self.dir, says="x" * 80 + "...").err
        self.assertLess(len(said), 1000)
        said = self.expect(USAGE, "train", "--" + "y" * 100000).err
        self.assertLess(len(said), 1000)

    def test_absurd_sizes_are_described_at_once(self):
        start = time.monotonic()
        self.expect(DONE, "inspect", "demo", "--set", "num_hidden_layers=10000", "--set", "n_routed_experts=1024")
        self.assertLess(time.monotonic() - start, 20)
        (self.dir / "absurd.json").write_text(json.dumps({**SMALL, "num_hidden_layers": 10000, "n_routed_experts": 1024, "topk_method": "greedy", "bias_update_speed": 0}))
        for verb in (["train", "--config", self.dir / "absurd.json", "--data", self.text, "--out", self.dir / "run"], ["bench", "train", "--config", self.dir / "absurd.json"],
                     ["compare", "--config", self.dir / "absurd.json", "--vary", "weight_decay=0.1,0.2", "--data", self.text, "--out", self.dir / "study"]):
            self.expect(REFUSED, *verb, says=["10000 layers of n_routed_experts 1024", "at most 262144"], timeout=20)


if __name__ == "__main__":
    unittest.main()
