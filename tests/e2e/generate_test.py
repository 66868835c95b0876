"""generate for programs: JSON lines, log-probabilities, standard input, several prompts and samples; and one rule for positions."""
import array
import fcntl
import json
import math
import signal
import socket
import struct
import subprocess
import termios
import time
import unittest

from support import DONE, PROGRAM, REFUSED, USAGE, Case


class Generate(Case):
    def setUp(self):
        super().setUp()
        self.run_dir = self.dir / "run"
        self.train(self.run_dir, change={"steps": 2, "checkpoint_every": 0, "max_position_embeddings": 120})

    def generate(self, *more, code=DONE, says=()):
        return self.expect(code, "generate", "-m", self.run_dir, "--dtype", "fp32", *more, says=says).out

    def lines(self, *more):
        return [json.loads(line) for line in self.generate("--json", *more).splitlines()]

    def test_a_line_says_what_the_text_does(self):
        for more in ([], ["--temp", "0"], ["--seed", "7", "--top-p", "0.8"], ["--mla", "expanded"]):
            text = subprocess.run([PROGRAM, "generate", "-m", self.run_dir, "--dtype", "fp32", "-p", "To be", "-n", "40", *more], capture_output=True, check=True).stdout
            (said,) = self.lines("-p", "To be", "-n", "40", *more)
            self.assertEqual(bytes(said["tokens"]) + b"\n", text, more)  # a byte model
            self.assertEqual(said["text"], text[:-1].decode(errors="replace"))
            self.assertEqual((said["finish"], said["prompt_tokens"], said["prompt"], said["sample"]), ("length", 5, 0, 0))
            self.assertEqual(len(said["logprobs"]), 40)
            self.assertNotIn("top", said)

    def test_logprobs_are_those_of_the_logits(self):
        (said,) = self.lines("-p", "To be", "-n", "20", "--mla", "expanded", "--top-logprobs", "3")
        ids, out = self.dir / "ids", self.dir / "logits"
        ids.write_text(" ".join(map(str, [*b"To be", *said["tokens"]])))
        self.expect(DONE, "logits", "-m", self.run_dir, "--dtype", "fp32", "--tokens-file", ids, "--out", out)
        data = out.read_bytes()
        start = 8 + struct.unpack_from("<Q", data)[0]
        for i, (token, logprob, top) in enumerate(zip(said["tokens"], said["logprobs"], said["top"], strict=True)):
            row = struct.unpack_from("<256f", data, start + 1024 * (4 + i))
            norm = math.log(sum(map(math.exp, row)))
            self.assertAlmostEqual(logprob, row[token] - norm, delta=1e-6)  # terms are summed in fp32, as in training
            best = sorted(range(256), key=lambda id: (-row[id], id))[:3]
            self.assertEqual([id for id, _ in top], best)
            for id, p in top:
                self.assertAlmostEqual(p, row[id] - norm, delta=1e-6)

    def test_together_is_what_each_is_alone(self):
        prompts = self.dir / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in ("To be", "To be or", "O", "To be" * 10)))
        plain = ["--prompts", prompts, "-n", "20", "--samples", "3"]
        want = self.lines(*plain)
        for more in (["--parallel", "2"], ["--parallel", "12"], ["--parallel", "5", "--draft", "4"], ["--draft", "3"]):
            got = self.lines(*plain, *more)
            for one in got:
                self.assertEqual("drafted" in one, "--draft" in more)
                self.assertGreaterEqual(one.pop("drafted", 0), one.pop("accepted", 0))
            self.assertEqual(got, want, more)
        for more in ([], ["--special"]):
            self.assertEqual(self.generate(*plain, *more, "--parallel", "7"), self.generate(*plain, *more))

    def test_caches(self):
        want = self.lines("-p", "To be", "-n", "20", "--temp", "0")
        self.assertEqual(self.lines("-p", "To be", "-n", "20", "--temp", "0", "--cache-type", "fp32"), want)
        self.assertEqual(len(self.lines("-p", "To be", "-n", "20", "--temp", "0", "--cache-type", "int8")[0]["tokens"]), 20)
        self.generate("-p", "x", "--cache-type", "q4", code=USAGE, says=["--cache-type", '"q4"', "fp32, bf16, int8"])
        self.generate("-p", "x", "--cache-memory", "0", code=USAGE, says=["--cache-memory"])
        self.generate("-p", "x", "--parallel", "0", code=USAGE, says=["--parallel"])
        self.generate("-p", "x", "--draft", "17", code=USAGE, says=["--draft"])

    def test_ends_and_stops(self):
        drawn = self.lines("-p", "To be", "-n", "5", "--seed", "0", "--samples", "100")
        seed = next(s["sample"] for s in drawn if max(s["tokens"][3:5]) < 128)  # of any two bytes, every fourth pair is text
        (said,) = self.lines("-p", "To be", "-n", "30", "--seed", seed)
        stop = bytes(said["tokens"][3:5]).decode()
        (stopped,) = self.lines("-p", "To be", "-n", "30", "--seed", seed, "--stop", stop)
        self.assertEqual(stopped["finish"], "stop")
        self.assertTrue(stopped["text"].endswith(stop))
        self.assertEqual(stopped["tokens"], said["tokens"][:len(stopped["tokens"])])
        self.assertEqual(stopped["logprobs"], said["logprobs"][:len(stopped["tokens"])])
        (ids,) = self.lines("--tokens-file", self.ids("84 111 32 98 101"), "-n", "30", "--seed", seed)
        self.assertNotIn("text", ids)
        self.assertEqual(ids["tokens"], said["tokens"])
        (nothing,) = self.lines("-p", "To be", "-n", "0")
        self.assertEqual((nothing["tokens"], nothing["logprobs"], nothing["text"], nothing["finish"]), ([], [], "", "length"))

    def ids(self, text):
        (self.dir / "ids").write_text(text)
        return self.dir / "ids"

    def test_many_prompts_and_samples(self):
        prompts = self.dir / "prompts.jsonl"
        prompts.write_text('\ufeff{"prompt": "To be"}\n\n{"prompt": "or not", "id": 5}\n')
        said = self.lines("--prompts", prompts, "--samples", "3", "-n", "12", "--seed", "4")
        self.assertEqual([(s["prompt"], s["sample"]) for s in said], [(p, s) for p in (0, 1) for s in (0, 1, 2)])
        for s in said:
            alone = self.lines("-p", ("To be", "or not")[s["prompt"]], "-n", "12", "--seed", 4 + s["sample"])[0]
            self.assertEqual((s["tokens"], s["logprobs"]), (alone["tokens"], alone["logprobs"]))
        self.assertEqual(len({tuple(s["tokens"]) for s in said}), 6)
        prompts.write_text('{"prompt": "a"}\n{"text": "b"}\n')
        self.generate("--prompts", prompts, code=REFUSED, says=["prompts.jsonl:2", '{"prompt": "..."}'])
        prompts.write_text("\n")
        self.generate("--prompts", prompts, code=REFUSED, says="no prompts")
        self.generate("--prompts", prompts, "-p", "a", code=USAGE, says="more than one of")

    def test_standard_input(self):
        given = subprocess.run([PROGRAM, "generate", "-m", self.run_dir, "-p", "-", "-n", "20"], input=b"To be", capture_output=True)
        self.assertEqual(given.returncode, 0, given.stderr)
        named = subprocess.run([PROGRAM, "generate", "-m", self.run_dir, "-p", "To be", "-n", "20"], capture_output=True)
        self.assertEqual(given.stdout, named.stdout)
        ours, its = socket.socketpair()
        with ours, its, subprocess.Popen([PROGRAM, "generate", "-m", self.run_dir, "-p", "-", "-n", "20"], stdin=its, stdout=subprocess.PIPE) as process:
            ours.sendall(b"To be")
            ours.shutdown(socket.SHUT_WR)
            self.assertEqual(process.communicate(timeout=60)[0], named.stdout)

    def test_a_signal_ends_the_wait_for_a_prompt(self):
        with subprocess.Popen([PROGRAM, "generate", "-m", self.run_dir, "-p", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(timeout=20), -signal.SIGTERM)

    def test_a_signal_while_the_reader_is_slow(self):
        words = [PROGRAM, "generate", "-m", self.run_dir, "-p", "To be", "-n", "100", "--samples", "1000000", "--json", "--top-logprobs", "9"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            held = -1
            while held != (held := array.array("i", fcntl.ioctl(process.stdout, termios.FIONREAD, bytes(4)))[0]) or not held:
                time.sleep(1)  # until the pipe is full
            process.send_signal(signal.SIGTERM)
            said, complaint = process.communicate(timeout=60)
        self.assertEqual((process.returncode, complaint), (DONE, b""))
        self.assertGreaterEqual(len(said), held)

    def test_repetition_penalty(self):
        (plain,), (penalised,) = (self.lines("-p", "To be", "-n", "30", "--temp", "0", *more) for more in ([], ["--repetition-penalty", "1000"]))
        self.assertLess(len(set(plain["tokens"])), len(set(penalised["tokens"])))

    def test_penalties_and_biases(self):
        greedy = ["-p", "To be", "-n", "30", "--temp", "0"]
        (plain,) = self.lines(*greedy)
        first = plain["tokens"][0]
        (banned,) = self.lines(*greedy, "--logit-bias", f"{first}=-100", "--logit-bias", "0=-1.5")
        self.assertNotIn(first, banned["tokens"])
        (only,) = self.lines(*greedy, "--logit-bias", "65=100")
        self.assertEqual((only["tokens"], only["text"]), ([65] * 30, "A" * 30))
        for flag in ("--presence-penalty", "--frequency-penalty"):
            (penalised,) = self.lines(*greedy, flag, "2")
            self.assertLess(len(set(plain["tokens"])), len(set(penalised["tokens"])), flag)
        for penalised in (banned, only):  # the model's own, whatever was done to them
            self.assertTrue(all(p < 0 for p in penalised["logprobs"]))
        (typical,), (drawn,) = (self.lines("-p", "To be", "-n", "100", "--typical-p", p) for p in ("0.1", "1"))
        self.assertNotEqual(typical["tokens"], drawn["tokens"])

    def test_positions_have_one_rule(self):
        long = self.dir / "long"
        long.write_text("a" * 60000)
        self.generate("--prompt-file", long, code=REFUSED, says=["prompt of 60000 tokens", "-n 200", "max_position_embeddings 120"])
        self.generate("-p", "To be", "-n", "115")
        self.generate("-p", "To be", "-n", "116", code=REFUSED, says="121 positions")
        out = self.dir / "out"
        self.expect(DONE, "logits", "-m", self.run_dir, "--tokens-file", self.ids("1 " * 120), "--out", out)
        self.expect(REFUSED, "logits", "-m", self.run_dir, "--tokens-file", self.ids("1 " * 121), "--out", out, says=["121 tokens", "max_position_embeddings"])
        self.expect(DONE, "bench", "infer", "-m", self.run_dir, "--prompt", 100, "--decode", 19)
        self.expect(USAGE, "bench", "infer", "-m", self.run_dir, "--prompt", 100, "--decode", 20, says="max_position_embeddings 120")
        self.expect(DONE, "eval", "-m", self.run_dir, "--data", self.text, "--seq-len", 120)
        self.expect(REFUSED, "eval", "-m", self.run_dir, "--data", self.text, "--seq-len", 121, says="1 to 120")

    def test_options_outside_their_range(self):
        for more in (["--seed", "-1"], ["--seed", 2**64], ["-n", "-1"], ["--samples", "0"], ["--top-logprobs", "-1", "--json"],
                     ["--top-logprobs", "2"], ["--repetition-penalty", "0"]):
            self.generate("-p", "a", *more, code=USAGE)
        for more, says in ((["--typical-p", "0"], ["typical-p", "(0, 1]"]), (["--presence-penalty", "2.5"], ["presence-penalty", "[-2, 2]"]),
                           (["--frequency-penalty", "-3"], ["frequency-penalty"]), (["--logit-bias", "7"], ["ID=BIAS", "7"]),
                           (["--logit-bias", "a=1"], ["ID=BIAS"]), (["--logit-bias", "7=101"], ["logit-bias of id 7", "[-100, 100]"]),
                           (["--logit-bias", "256=1"], ["id 256", "0 to 255"]), (["--logit-bias=-1=1"], ["id -1", "0 to 255"])):
            self.generate("-p", "a", *more, code=USAGE, says=says)
            self.expect(USAGE, "chat", "-m", self.run_dir, *more, says=says)
        self.expect(USAGE, "eval", "-m", self.run_dir, "--data", self.text, "--seq-len", 0)
        self.expect(USAGE, "eval", "-m", self.run_dir, "--data", f"{self.text}@2", says=["@2", "weight"])
        for context in (0, -1, 2**40):
            self.expect(USAGE, "chat", "-m", self.run_dir, "--context", context)
        self.expect(USAGE, "chat", "-m", self.run_dir, "--context", 999999, says="max_position_embeddings 120")

    def test_formats_of_weights(self):
        self.generate("-p", "a", "--weights", "q5", code=USAGE, says=["--weights", "q5", "one of auto, stored, q8, q4"])
        self.generate("-p", "a", "--head-weights", "q2", code=USAGE, says=["--head-weights", "q2"])

        blocks = self.dir / "blocks"  # of widths that divide into blocks of 32
        self.train(blocks, change={"steps": 1, "hidden_size": 32, "intermediate_size": 32, "moe_intermediate_size": 32})

        def bytes_of(*more):
            out = self.expect(DONE, "bench", "infer", "-m", blocks, "--prompt", 1, "--decode", 1, "--json", *more).out
            return json.loads(out)["weight_bytes_per_token"]

        q4 = bytes_of("--weights", "q4")
        self.assertEqual(q4, bytes_of("--weights", "q4", "--head-weights", "q8"), "the head is q8 beside q4")
        self.assertLess(bytes_of("--weights", "q4", "--head-weights", "q4"), q4)
        self.assertLess(q4, bytes_of("--weights", "q8"))
        self.assertEqual(bytes_of("--weights", "q8"), bytes_of("--weights", "q8", "--head-weights", "q8"))
        self.assertEqual(bytes_of(), bytes_of("--weights", "stored"))


if __name__ == "__main__":
    unittest.main()
