"""Models that are larger than memory: in a memory control group whose limit is two thirds of the weights the program writes what it writes
without one. Needs the right to make such a group (version 1 or 2) and is skipped without it."""
import json
import os
import pathlib
import random
import re
import struct
import sys
import unittest

from support import DONE, REFUSED, REPOSITORY, USAGE, Case

sys.path.insert(0, str(REPOSITORY / "tools"))
from make_random_model import size, values

GROUPS = pathlib.Path("/sys/fs/cgroup")
DIM, INTER, LAYERS, EXPERTS, VOCAB = 512, 1024, 4, 16, 256
CONFIG = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "vocab_size": VOCAB, "hidden_size": DIM, "intermediate_size": INTER,
          "num_hidden_layers": LAYERS, "num_attention_heads": 8, "num_key_value_heads": 2, "num_local_experts": EXPERTS, "num_experts_per_tok": 2,
          "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "torch_dtype": "bfloat16", "tie_word_embeddings": False}


def tensors():
    yield "model.embed_tokens.weight", (VOCAB, DIM)
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (DIM,)
        for name, rows in ("q", DIM), ("k", DIM // 4), ("v", DIM // 4), ("o", DIM):
            yield f"{p}self_attn.{name}_proj.weight", (rows, DIM)
        yield p + "post_attention_layernorm.weight", (DIM,)
        yield p + "block_sparse_moe.gate.weight", (EXPERTS, DIM)
        for e in range(EXPERTS):
            for name, shape in ("w1", (INTER, DIM)), ("w2", (DIM, INTER)), ("w3", (INTER, DIM)):
                yield f"{p}block_sparse_moe.experts.{e}.{name}.weight", shape
    yield "model.norm.weight", (DIM,)
    yield "lm_head.weight", (VOCAB, DIM)


def write_model(directory):
    """A mixture of experts with random weights in bf16; returns their bytes."""
    header, offset = {}, 0
    for name, shape in tensors():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + 2 * size(shape)]}
        offset += 2 * size(shape)
    text = json.dumps(header).encode()
    rng = random.Random(1)
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG))
    with open(directory / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, shape in tensors():
            f.writelines(values(rng, shape))
    return offset


class MemoryGroup:
    """A control group of its own with a limit; programs enter it before they start."""

    def __init__(self, limit):
        v1 = (GROUPS / "memory").is_dir()
        self.path = (GROUPS / "memory" if v1 else GROUPS) / f"birkhoff-test-{os.getpid()}-{limit}"
        self.peak_file = self.path / ("memory.max_usage_in_bytes" if v1 else "memory.peak")
        self.path.mkdir()
        try:
            (self.path / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(str(limit))
            if (self.path / "memory.swap.max").exists():
                (self.path / "memory.swap.max").write_text("0")
        except OSError:
            self.remove()
            raise

    def enter(self):
        (self.path / "cgroup.procs").write_text("0")

    def remove(self):
        self.path.rmdir()


class Streamed(Case):
    def setUp(self):
        super().setUp()
        self.model = self.dir / "model"
        self.bytes = write_model(self.model)
        self.ids = self.dir / "ids"
        self.ids.write_text(" ".join(str(i * 37 % VOCAB) for i in range(40)))

    def group(self, limit):
        try:
            group = MemoryGroup(limit)
        except OSError as e:
            self.skipTest(f"no memory control group can be made here: {e}")
        self.addCleanup(group.remove)
        return group

    def forget(self):
        """What a program without a limit read, or this test wrote, counts for nobody's limit and is no use to others."""
        os.sync()
        for path in self.dir.rglob("*"):
            if path.is_file():
                with open(path, "rb") as f:
                    os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def generate(self, *more, group=None, code=DONE, says=()):
        self.forget()
        return self.expect(code, "generate", "-m", self.model, "--tokens-file", self.ids, "--json", "-n", "24", "--cache-memory", "8", "--threads", "2",
                           *more, says=says, preexec_fn=group.enter if group else None)

    def check(self, group, limit, *more):
        got = self.generate("--stream", *more, group=group)
        peak = int(group.peak_file.read_text()) if group.peak_file.exists() else 0
        self.assertLessEqual(peak, limit)
        self.assertEqual(got.out, self.generate(*more).out)
        read = re.search(r"streamed: 23 tokens, ([0-9.]+) tokens/s, ([0-9.]+) MiB a token read from the disk", got.err)
        self.assertTrue(read, got.err)
        self.assertGreater(float(read[1]), 0)
        return got, float(read[2]) * 2**20

    def test_weights_of_one_and_a_half_times_the_memory(self):
        limit = self.bytes * 2 // 3
        group = self.group(limit)
        self.generate(group=group, code=REFUSED, says=[f"this machine has {limit // 2**20} MiB", "--stream"])
        got, read = self.check(group, limit)
        self.assertRegex(got.err, r"a token is expected to read \d+ MiB of its \d+ MiB from the disk, at [0-9.]+ GB/s [0-9.]+ tokens/s")
        self.assertGreater(read, 0)
        self.assertLess(read, self.bytes, "experts that no token chose are not read")

    def test_quantised_weights_lie_in_a_file(self):
        self.generate("--stream", "--weights", "q8", code=USAGE, says=["--cache DIR", "--weights stored"])
        limit = self.bytes // 2 * 2 // 3  # of 8.5 bits a weight
        group, cache = self.group(limit), self.dir / "cache"
        self.check(group, limit, "--weights", "q8", "--cache", cache)
        self.assertEqual(len(list(cache.iterdir())), 1)

    def test_what_fits_is_not_read_again(self):
        got = self.generate("--stream")
        self.assertIn("stay in memory once they were read", got.err)
        self.assertEqual(got.out, self.generate().out)

    def test_bench_says_what_was_read(self):
        said = json.loads(self.expect(DONE, "bench", "infer", "-m", self.model, "--stream", "--prompt", "8", "--decode", "4", "--json").out)
        self.assertGreater(said["depths"][0]["decode_tokens_per_s"], 0)
        self.assertGreaterEqual(said["depths"][0]["disk_bytes_per_token"], 0)
        self.assertEqual(said["streamed"]["expected_disk_bytes_per_token"], 0)

    def test_memory_is_what_was_planned(self):
        flags = ["bench", "infer", "-m", self.model, "--prompt", "8", "--decode", "4", "--json"]
        for cache in [], ["--cache", self.dir / "cache"]:
            said = json.loads(self.expect(DONE, *flags, "--weights", "q8", *cache).out)
            planned, seen = said["planned_mib"], said["rss_mib"]
            self.assertGreater(planned, self.bytes / 2**20 / 2)
            self.assertLess(abs(seen - planned), 40, "with what any program takes; the file itself is twice that and more")


if __name__ == "__main__":
    unittest.main()
