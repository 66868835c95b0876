"""GGUF files through the program: every verb that takes a model, files that are damaged, cut short, in the wrong place or in shards. With
BIRKHOFF_ORACLE also its damaged files."""
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import time
import unittest

from support import DONE, REFUSED, REPOSITORY, USAGE, Case

MODELS = REPOSITORY / "tests" / "golden" / "gguf" / "models"
FULL = pathlib.Path(os.environ.get("BIRKHOFF_ORACLE") or "/nowhere") / "gguf"


def logits_of(path):
    raw = path.read_bytes()
    header, = struct.unpack_from("<Q", raw)
    about = json.loads(raw[8:8 + header])["logits"]
    begin, end = about["data_offsets"]
    return struct.unpack(f"<{(end - begin) // 4}f", raw[8 + header + begin:8 + header + end])


class Gguf(Case):
    def setUp(self):
        super().setUp()
        self.model = MODELS / "deepseek2" / "q4_0.gguf"
        self.ids = MODELS / "deepseek2" / "ids.txt"

    def logits(self, model, code=DONE, says=(), adapter=None):
        out = self.dir / "logits"
        out.unlink(missing_ok=True)
        self.expect(code, "logits", "-m", model, "--tokens-file", self.ids, "--out", out, "--dtype", "fp32",
                    *(["--adapter", adapter] if adapter else []), says=says)
        return logits_of(out) if code == DONE else None

    def test_every_verb(self):
        text = self.expect(DONE, "generate", "-m", self.model, "-p", "Once upon a time", "-n", "8", "--temp", "0").out
        self.assertTrue(text)
        self.assertIn("deepseek_v2", self.expect(DONE, "inspect", self.model).out)
        self.expect(DONE, "eval", "-m", self.model, "--data", self.text, "--seq-len", "64")
        self.expect(DONE, "bench", "infer", "-m", self.model, "--prompt", "4", "--decode", "2")
        conversation = self.dir / "c.json"
        conversation.write_text(json.dumps([{"role": "user", "content": "hi"}]))
        ids = subprocess.run([os.environ["BIRKHOFF_PROGRAM"], "tokenize", "-m", str(self.model), "--special"], input=b"<\xef\xbd\x9cUser\xef\xbd\x9c>hi",
                             capture_output=True, check=True).stdout.split()
        self.assertEqual(ids[:2], [b"316", b"318"])

    def test_a_directory_made_of_a_file_gives_its_logits(self):
        for model in ("deepseek2/q4_0", "llama/f16", "mixtral/q4_0"):
            self.ids = MODELS / model.split("/")[0] / "ids.txt"
            file, out = MODELS / f"{model}.gguf", self.dir / model.replace("/", "_")
            self.expect(DONE, "convert", "-m", file, "--out", out, "--dtype", "fp32")
            for a, b in zip(self.logits(file), self.logits(out)):
                self.assertAlmostEqual(a, b, delta=1e-5)
            self.same_text(file, out)

    def adapter(self):
        """Of the first layer's attention: every element of q_proj's and k_proj's update is another number."""
        tensors, data, at = {}, b"", 0
        for module, rows in (("q_proj", 32), ("k_proj", 16)):
            for name, shape in (("lora_A", (2, 32)), ("lora_B", (rows, 2))):
                values = [((i * 37 + rows) % 19 - 9) / 20 for i in range(shape[0] * shape[1])]
                raw = struct.pack(f"<{len(values)}f", *values)
                tensors[f"base_model.model.model.layers.0.self_attn.{module}.{name}.weight"] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(raw)]}
                data, at = data + raw, at + len(raw)
        header = json.dumps(tensors).encode()
        folder = self.dir / "adapter"
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj", "k_proj"]}))
        return folder

    def test_an_adapter_over_a_file_whose_rotary_rows_stand_in_another_order(self):
        self.ids = MODELS / "llama" / "ids.txt"
        file, directory = MODELS / "llama" / "f16.gguf", self.dir / "llama"
        self.expect(DONE, "convert", "-m", file, "--out", directory, "--dtype", "fp32")
        adapter = self.adapter()
        of_file, of_directory = (self.logits(m, adapter=adapter) for m in (file, directory))
        for a, b in zip(of_file, of_directory):
            self.assertAlmostEqual(a, b, delta=1e-5)
        self.assertGreater(max(abs(a - b) for a, b in zip(of_file, self.logits(file))), 1e-2)

    def same_text(self, *models):
        if "deepseek" not in str(models[0]):  # the others' files have no tokenizer
            return
        self.assertEqual(*(self.expect(DONE, "generate", "-m", m, "-p", "Once upon a time", "-n", "8", "--temp", "0", "--dtype", "fp32").out for m in models))

    def test_a_file_made_of_a_directory_gives_its_logits_and_text(self):
        for model in ("deepseek2/q4_0", "llama/f16", "mixtral/q4_0"):
            self.ids = MODELS / model.split("/")[0] / "ids.txt"
            directory, file = self.dir / model.replace("/", "_"), self.dir / f"{model.replace('/', '_')}.gguf"
            self.expect(DONE, "convert", "-m", MODELS / f"{model}.gguf", "--out", directory)
            self.expect(DONE, "convert", "-m", directory, "--gguf", file, "--gguf-type", "bf16")
            for a, b in zip(self.logits(directory), self.logits(file)):
                self.assertAlmostEqual(a, b, delta=1e-5)
            self.same_text(directory, file)
        self.expect(DONE, "convert", "-m", self.model, "--gguf", self.dir / "copy.gguf", "--gguf-type", "q4_0")
        self.expect(DONE, "generate", "-m", self.dir / "copy.gguf", "-p", "Once", "-n", "4")

    def test_sparse_models_there_and_back(self):
        for case in ("deepseek_v32", "deepseek_v4"):
            directory, file, back = REPOSITORY / "tests" / "golden" / "cases" / case, self.dir / f"{case}.gguf", self.dir / case
            self.ids = self.dir / "ids.txt"
            self.ids.write_text(" ".join(str(i * 37 % 128) for i in range(40)))
            done = self.expect(DONE, "convert", "-m", directory, "--gguf", file, "--gguf-type", "f32")
            self.assertIn("index_head_dim 16", done.err)  # with which llama.cpp does not compute
            self.assertIn(case, self.expect(DONE, "inspect", file).out)
            self.expect(DONE, "convert", "-m", file, "--out", back, "--dtype", "fp32")
            want = self.logits(directory)
            self.assertEqual(self.logits(file), want)
            self.assertEqual(self.logits(back), want)
            whole = file.read_bytes()
            for key in (b"attention.indexer.top_k", b"expert_used_count"):
                wrong = self.dir / "wrong.gguf"
                wrong.write_bytes(whole.replace(key, key[:-1] + b"?"))
                self.logits(wrong, REFUSED, says=[f"{key.decode()} is missing", "wrong.gguf"])

    def test_a_trained_v4_model(self):
        run, file = self.dir / "run", self.dir / "v4.gguf"
        small = {"model_type": "deepseek_v4", "residual": "mhc", "vocab_size": 256, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
                 "head_dim": 16, "qk_rope_head_dim": 8, "q_lora_rank": 16, "o_groups": 2, "o_lora_rank": 8, "sliding_window": 8,
                 "compress_ratios": "[0,4,128]", "index_n_heads": 4, "index_head_dim": 64, "index_topk": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
                 "moe_intermediate_size": 32, "n_shared_experts": 1, "num_hash_layers": 1, "scoring_func": "sqrtsoftplus", "topk_method": "noaux_tc",
                 "norm_topk_prob": "true", "steps": 2, "seq_len": 64, "batch_size": 1}
        words = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
        self.expect(DONE, "train", "--data", self.text, "--out", run, *words)
        self.assertNotIn("llama.cpp", self.expect(DONE, "convert", "-m", run, "--gguf", file).err)
        self.expect(DONE, "convert", "-m", run, "--out", self.dir / "directory", "--dtype", "bf16")
        texts = [self.expect(DONE, "generate", "-m", model, "-p", "Once upon a time", "-n", "16", "--temp", "0").out for model in (self.dir / "directory", file)]
        self.assertEqual(texts[0], texts[1])
        self.expect(DONE, "bench", "infer", "-m", file, "--prompt", "4", "--decode", "2")

    def test_bytes_that_are_no_text(self):
        """A model of bytes reads and writes what is no UTF-8, be it a file; 3 rows have no token."""
        run, file, data = self.dir / "run", self.dir / "bytes.gguf", self.dir / "data"
        data.write_bytes(bytes(range(256)) * 8)
        small = {"vocab_size": 259, "hidden_size": 32, "residual": "plain", "steps": 1, "seq_len": 32}
        self.expect(DONE, "train", "--preset", "demo", "--data", data, "--out", run, *(word for k, v in small.items() for word in ("--set", f"{k}={v}")))
        self.expect(DONE, "convert", "-m", run, "--gguf", file, "--gguf-type", "f32")
        self.expect(DONE, "convert", "-m", file, "--out", self.dir / "again", "--dtype", "fp32")
        first, *others = (json.loads(self.expect(DONE, "eval", "-m", m, "--data", data, "--seq-len", "32", "--dtype", "fp32", "--json").out)
                          for m in (run, file, self.dir / "again"))
        for other in others:
            self.assertEqual((first["tokens"], first["bytes"]), (other["tokens"], other["bytes"]))
            self.assertAlmostEqual(first["nats_per_byte"], other["nats_per_byte"], delta=1e-6)

    def test_a_refusal_stands_alone(self):
        """What llama.cpp would do with a file is not said of one that is not written."""
        case, v4 = REPOSITORY / "tests" / "golden" / "cases" / "deepseek_v4", self.dir / "v4"
        shutil.copytree(case, v4)
        config = json.loads((v4 / "config.json").read_text())
        config["rope_scaling"] = {"type": "linear", "factor": 2.0}
        (v4 / "config.json").write_text(json.dumps(config))
        done = self.expect(REFUSED, "convert", "-m", v4, "--gguf", self.dir / "v4.gguf", says="rope_scaling linear")
        self.assertNotIn("llama.cpp", done.err)
        done = self.expect(REFUSED, "convert", "-m", case, "--gguf", self.dir / "none" / "v4.gguf", says="none/v4.gguf")
        self.assertNotIn("llama.cpp", done.err)

    def test_quantised_weights_are_kept(self):
        cache, made = self.dir / "cache", self.dir / "made"
        flags = ["--tokens-file", self.ids, "--out", self.dir / "logits", "--dtype", "bf16"]
        runs = []
        for says, words in (("preparing", ["-m", self.model, "--cache", cache]), ("", ["-m", self.model, "--cache", cache]), ("preparing", ["-m", self.model])):
            done = self.expect(DONE, "logits", *words, *flags)
            self.assertEqual("preparing" in done.err, bool(says))
            runs.append(logits_of(self.dir / "logits"))
        self.assertEqual(runs[0], runs[1])
        self.assertEqual(runs[0], runs[2])
        self.assertEqual(len(list(cache.iterdir())), 1)
        self.expect(DONE, "convert", "-m", self.model, "--weights", "q8", "--out", made)
        self.assertEqual(len(list(made.glob("*.panels"))), 1)
        self.assertNotIn("preparing", self.expect(DONE, "logits", "-m", made, *flags).err)
        carried = logits_of(self.dir / "logits")
        self.expect(DONE, "convert", "-m", made, "--out", self.dir / "plain")
        self.assertEqual(list((self.dir / "plain").glob("*.panels")), [])
        self.expect(DONE, "logits", "-m", self.dir / "plain", "--weights", "q8", *flags)
        self.assertEqual(logits_of(self.dir / "logits"), carried)

    def test_what_cannot_be_written_as_a_file(self):
        out = self.dir / "m.gguf"
        self.expect(USAGE, "convert", "-m", self.model, says=["--out", "--gguf"])
        self.expect(USAGE, "convert", "-m", self.model, "--gguf", out, "--out", self.dir / "d", says="at once")
        self.expect(USAGE, "convert", "-m", self.model, "--gguf", out, "--gguf-type", "q5_k", says=["q5_k", "q8_0"])
        self.expect(REFUSED, "convert", "-m", self.model, "--gguf", self.dir / "none" / "m.gguf", says="none/m.gguf")
        self.expect(USAGE, "convert", "-m", self.model, "--gguf", out, "--weights", "q8", says="--gguf-type")
        copy = self.dir / "source.gguf"
        shutil.copy(self.model, copy)
        self.expect(USAGE, "convert", "-m", copy, "--gguf", copy, says="source.gguf")
        run = self.dir / "run"
        self.expect(DONE, "train", "--preset", "demo", "--data", self.text, "--out", run, "--set", "steps=1", "--set", "hidden_size=32", "--set", "seq_len=16")
        self.expect(REFUSED, "convert", "-m", run, "--gguf", out, says=["hyper-connections", "mhc", "--out"])
        self.assertFalse(out.exists())

    def test_what_is_no_model(self):
        self.logits(self.dir / "none.gguf", REFUSED, says="does not exist")
        wrong = self.dir / "wrong.gguf"
        wrong.write_bytes(b"not a model at all")
        self.logits(wrong, REFUSED, says=["wrong.gguf", "GGUF"])
        whole = self.model.read_bytes()
        for size in (0, 3, 20, 500, 12_000, len(whole) - 100):
            wrong.write_bytes(whole[:size])
            self.logits(wrong, REFUSED, says="wrong.gguf")
            self.expect(REFUSED, "generate", "-m", wrong, "-p", "a", "-n", "1", says="wrong.gguf")
            self.expect(REFUSED, "inspect", wrong, says="wrong.gguf")
        self.expect(REFUSED, "train", "--init", self.model, "--data", self.text, "--out", self.dir / "run", says=["GGUF", "convert"])

    def test_a_directory_that_holds_a_file(self):
        folder = self.dir / "folder"
        folder.mkdir()
        shutil.copy(self.model, folder / "m.gguf")
        self.logits(folder, REFUSED, says=["no config.json", "folder/m.gguf"])
        (folder / "m.gguf").rename(folder / "without_ending")
        self.logits(folder / "without_ending")

    def test_shards(self):
        raw = self.model.read_bytes()
        at = raw.index(b"general.architecture") - 8
        def with_keys(number, keys, tensors, rest):
            key = lambda name, kind, value: struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value
            own = key(b"split.no", 2, struct.pack("<H", number)) + key(b"split.count", 2, struct.pack("<H", 2))
            header = raw[:4] + struct.pack("<IQQ", 3, tensors, keys + 2) + own + rest
            return header
        tensors, keys = struct.unpack_from("<QQ", raw, 8)
        # All tensors stay in the first: the two keys shift the data by less than what the padding is made to fill.
        base = with_keys(0, keys, tensors, raw[at:])
        grown = len(base) - len(raw)
        filler = struct.pack("<Q", 1) + b"x" + struct.pack("<IQ", 8, (-(grown + 21)) % 32) + bytes((-(grown + 21)) % 32)
        first, second = self.dir / "m-00001-of-00002.gguf", self.dir / "m-00002-of-00002.gguf"
        first.write_bytes(with_keys(0, keys + 1, tensors, filler + raw[at:]))
        self.logits(first, REFUSED, says=["shard 2 of 2 is missing", second.name])
        second.write_bytes(with_keys(1, 0, 0, b""))
        self.assertEqual(self.logits(first), self.logits(self.model))
        self.logits(second, REFUSED, says=["shard 2 of 2", "-00001-of-00002.gguf"])

    @unittest.skipUnless(FULL.exists(), "BIRKHOFF_ORACLE names no full reference set")
    def test_damaged_files_of_the_full_set(self):
        source, self.ids = FULL / "models" / "llama" / "q4_0.gguf", FULL / "models" / "llama" / "ids.txt"
        subprocess.run([sys.executable, "-B", FULL / "make_malformed.py", source, self.dir / "bad"], check=True, capture_output=True)
        want = self.logits(source)
        cases = json.loads((self.dir / "bad" / "cases.json").read_text())
        self.assertEqual(len(cases), 51)
        for name, case in cases.items():
            with self.subTest(name):
                file, begin = self.dir / "bad" / f"{name}.gguf", time.monotonic()
                if case["expect"] == "refuse":
                    self.logits(file, REFUSED, says=f"{name}.gguf")
                    self.assertLess(time.monotonic() - begin, 5)
                else:
                    self.assertEqual(self.logits(file), want)
                    self.expect(DONE, "generate", "-m", file, "-p", "Once", "-n", "2")


if __name__ == "__main__":
    unittest.main()
