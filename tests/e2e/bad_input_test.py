"""Input that must be refused: the message names the thing and a way out, the exit code is the documented one, nothing is lost."""
import json
import os
import resource
import shutil
import signal
import subprocess
import unittest

from support import (DONE, FAILED, PROGRAM, REFUSED, SMALL, USAGE, Case, checkpoint_steps, losses, set_weight, settings, weights, xxh64)


class CommandLine(Case):
    def test_unknown_names_are_refused_with_the_nearest(self):
        out = self.dir / "run"
        train = ["train", "--data", self.text, "--out", out]
        for arguments, code, says in [
            ([*train, "--thread", "1"], USAGE, ['--thread', '"--threads"']),
            (["trian"], USAGE, ["trian", '"train"']),
            (["eval", "-m", out, "--dta", "x"], USAGE, ["--dta", '"--data"']),
            ([*train, "--set", "lrr=1"], USAGE, ['unknown setting "lrr"', '"lr"']),
            ([*train, "--set", "hidden_sise=8"], USAGE, ['"hidden_sise"', '"hidden_size"']),
            ([*train, "--preset", "dmo"], USAGE, ['unknown preset "dmo"', '"demo"']),
            (["bench", "train", "--preset", "tinny"], USAGE, ['"tinny"', '"tiny"']),
            ([*train, "--set", "lr"], USAGE, ["key=value"]),
            ([*train, "--set", "dtype=bf61"], REFUSED, ['dtype: unknown value "bf61"', '"bf16"']),
            ([*train, "--set", "residual=mch"], REFUSED, ['residual: unknown value "mch"', '"mhc"']),
            ([*train, "--set", "optimizer=adam"], REFUSED, ['optimizer: unknown value "adam"', '"adamw"']),
            ([*train, "--set", "topk_method=noaux"], REFUSED, ['topk_method: unknown value "noaux"', '"noaux_tc"'])]:
            with self.subTest(" ".join(map(str, arguments))):
                if "--set" in arguments:
                    arguments = [*arguments[:1], *settings(), *arguments[1:]]
                self.expect(code, *arguments, says=says)
        self.assertFalse(out.exists())

    def test_values_of_another_kind_are_refused(self):
        for change, says in [({"steps": "abc"}, 'steps: expected a whole number, got "abc"'), ({"steps": 1.5}, "steps: expected a whole number, got 1.5"),
                             ({"lr": "fast"}, 'lr: expected a number, got "fast"'), ({"keep_best": 3}, "keep_best: expected true or false, got 3"),
                             ({"batch_size": 0}, "batch_size: must be in 1 .. 2^24, is 0"), ({"steps": -1}, "steps: must be in 0 .. 2^40, is -1"),
                             ({"hidden_size": -16}, "hidden_size: must be in 1 .. 2^24, is -16"), ({"lr": -1}, "lr")]:
            with self.subTest(change):
                self.train(self.dir / "run", change=change, code=REFUSED, says=says)
        self.assertFalse((self.dir / "run").exists())

    def test_bad_configuration_files(self):
        run = self.dir / "run"
        for content, code, says in [(b"{", REFUSED, "c.json"), (b"[1, 2]", REFUSED, "not a JSON object"), (b"", REFUSED, "c.json"), (b"\xff\xfe\x00", REFUSED, "c.json"),
                                    (b'{"hiden_size": 8}', USAGE, '"hidden_size"'), (b'{"hidden_size": {"a": 1}}', REFUSED, "hidden_size: expected a whole number")]:
            with self.subTest(content):
                path = self.dir / "c.json"
                path.write_bytes(content)
                self.expect(code, "train", "--config", path, "--data", self.text, "--out", run, says=says)
        self.expect(REFUSED, "train", "--config", self.dir / "none.json", "--data", self.text, "--out", run, says="none.json")
        self.assertFalse(run.exists())

    def test_settings_that_contradict_each_other(self):
        for change, says in [
            ({"num_experts_per_tok": 5}, ["num_experts_per_tok: 5 is more than n_routed_experts 4"]),
            ({"qk_rope_head_dim": 3}, ["qk_rope_head_dim", "even", "3"]),
            ({"kv_lora_rank": 0, "head_dim": 5}, ["head_dim", "even", "5"]),
            ({"n_group": 3, "topk_group": 1}, ["n_group: 3 does not divide n_routed_experts 4"]),
            ({"n_group": 2, "topk_group": 3}, ["topk_group: 3 is more than n_group 2"]),
            ({"n_group": 4, "topk_group": 1}, ["num_experts_per_tok: 2 is more than the 1 experts of topk_group groups"]),
            ({"kv_lora_rank": 0, "num_attention_heads": 3}, ["num_attention_heads: 3 does not divide hidden_size 16"]),
            ({"kv_lora_rank": 0, "num_attention_heads": 4, "num_key_value_heads": 3}, ["num_key_value_heads: 3 does not divide num_attention_heads 4"]),
            ({"grad_accum": 2, "batch_size": 3}, ["grad_accum: 2 does not divide batch_size 3"]),
            ({"topk_method": "greedy", "scoring_func": "softmax"}, ["bias_update_speed", "no bias"]),
            ({"aux_devices": 3, "aux_device": 0.1}, ["aux_devices: 3 does not divide n_routed_experts 4"])]:
            with self.subTest(change):
                self.train(self.dir / "run", change=change, code=REFUSED, says=says)
        self.assertFalse((self.dir / "run").exists())

    def test_a_run_larger_than_the_machine_is_refused_before_allocating(self):
        limit = lambda: resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
        self.train(self.dir / "run", change={"hidden_size": 16384, "num_hidden_layers": 4000}, code=REFUSED, says=["MiB, this machine has", "weights", "hint: "], preexec_fn=limit)
        self.assertFalse((self.dir / "run").exists())


class Data(Case):
    def test_data_that_cannot_be_used(self):
        run, empty, short, folder = self.dir / "run", self.dir / "empty", self.dir / "short", self.dir / "folder"
        empty.write_bytes(b"")
        short.write_bytes(b"x" * 33)
        folder.mkdir()
        for data, says in [(self.dir / "missing.txt", "missing.txt: no such file or folder"), (empty, "empty: is empty"), (short, ["short", "33"]), (folder, "folder: the folder holds no files"),
                           (f"{self.text}@-1", "weight"), (f"{self.text}@heavy", "weight")]:
            with self.subTest(str(data)):
                self.train(run, data=data, code=REFUSED, says=says)
        self.train(run, "--val", empty, code=REFUSED, says="empty")
        self.expect(USAGE, "train", *settings(), "--out", run, says="no data")
        self.assertFalse(run.exists())

    @unittest.skipIf(os.geteuid() == 0 and not shutil.which("setpriv"), "root reads everything, and there is no setpriv")
    def test_data_that_may_not_be_read(self):
        self.text.chmod(0)
        drop = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
        self.dir.chmod(0o777)
        self.train(self.dir / "run", code=REFUSED, says=["text.txt", "Permission denied"], **drop)
        self.assertFalse((self.dir / "run").exists())

    def test_binary_data_is_fine(self):
        self.text.write_bytes(bytes(i * i % 256 for i in range(4096)))
        run = self.dir / "run"
        self.train(run, change={"steps": 2})
        self.assertEqual(len(losses(run)), 2)
        self.expect(DONE, "eval", "-m", run, "--data", self.text)


class Output(Case):
    def test_places_that_cannot_hold_a_run(self):
        file = self.dir / "file"
        file.write_text("x")
        self.train(file, code=REFUSED, says="exists and is not a directory")
        self.train("/proc/birkhoff-run", code=REFUSED, says="/proc/birkhoff-run")
        self.assertEqual(file.read_text(), "x")

    def test_a_directory_without_write_permission(self):
        shut = self.dir / "shut"
        shut.mkdir()
        shut.chmod(0o555)
        self.dir.chmod(0o777)
        drop = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
        self.train(shut / "run", code=REFUSED, says=["shut/run", "Permission denied"], **drop)
        self.train(shut, code=REFUSED, says=["shut", "Permission denied"], **drop)
        self.assertEqual(list(shut.iterdir()), [])

    def test_a_used_directory_is_refused_and_left_alone(self):
        run = self.dir / "run"
        self.train(run)
        before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"}
        self.train(run, code=REFUSED, says=["already holds a run", "--resume"])
        self.assertEqual(before, {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"})

    def test_a_directory_in_use_is_refused(self):
        run = self.dir / "run"
        with subprocess.Popen([PROGRAM, "train", *settings(steps=100000), "--data", self.text, "--out", run], stderr=subprocess.PIPE) as first:
            try:
                first.stderr.readline()  # it has the directory by its first message
                self.resume(run, code=REFUSED, says=["in use by process " + str(first.pid)])
            finally:
                first.kill()

    def test_the_disk_fills_up_while_a_checkpoint_is_written(self):
        run = self.dir / "run"
        self.train(run, change={"steps": 5})
        good, size = losses(run), (run / "latest" / "model.safetensors").stat().st_size
        # Metrics still fit, weights do not.
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, size - 1))
        self.resume(run, "--set", "steps=20", code=REFUSED, says=["step-10", "write failed", "hint: "], preexec_fn=limit)
        self.assertEqual(checkpoint_steps(run), [5])
        self.resume(run, "--set", "steps=20", says="resumed")
        self.assertEqual(checkpoint_steps(run), [10, 15, 20])
        self.assertEqual({s: l for s, l in losses(run).items() if s <= 5}, good)
        self.assertEqual([p for p in (run / "checkpoints").iterdir() if p.name.startswith(".")], [])


class Checkpoints(Case):
    def setUp(self):
        super().setUp()
        self.run_dir = self.dir / "run"
        self.train(self.run_dir, change={"steps": 10})
        self.newest = self.run_dir / "checkpoints" / "step-10"

    def damaged(self, file, edit):
        path = self.newest / file
        data = bytearray(path.read_bytes())
        path.write_bytes(edit(data))

    def test_a_damaged_newest_checkpoint_is_passed_over_and_named(self):
        def flip(data):
            data[len(data) // 2] ^= 1
            return data

        whole = self.dir / "whole"
        shutil.copytree(self.run_dir, whole, symlinks=True)
        self.resume(whole, "--set", "steps=12")
        for file, edit in [("model.safetensors", flip), ("model.safetensors", lambda d: d[:-100]), ("model.safetensors", lambda d: b""),
                           ("trainer_state/optimizer.safetensors", flip), ("trainer_state/position.json", lambda d: b"{}"), ("config.json", lambda d: d + b" "), ("manifest.json", lambda d: d[:-20])]:
            with self.subTest(file=file):
                shutil.rmtree(self.run_dir)
                self.train(self.run_dir, change={"steps": 10})
                self.damaged(file, edit)
                self.resume(self.run_dir, "--set", "steps=12", says=["step 10 is damaged", file, "using step 5", "at step 5"])
                # Steps 6 to 10 again: the same losses, and the same weights in the end, as from step 10 (the schedule sees steps=12 in both from there on).
                self.assertEqual(sorted(losses(self.run_dir)), list(range(1, 13)))

    def test_a_run_killed_before_its_first_step(self):
        for left in ("checkpoints/step-5", "checkpoints/step-10"):
            shutil.rmtree(self.run_dir / left)
        self.resume(self.run_dir, says="starting at step 0")
        for file, text, says in [("run.json", "{}", "run.json"), ("run.json", '{"data": 3}', "run.json")]:
            (self.run_dir / file).write_text(text)
            self.resume(self.run_dir, "--set", "steps=12", code=REFUSED, says=says)
        self.resume(self.run_dir, "--set", "steps=12", "--data", self.text)

    def test_a_position_that_was_edited(self):
        def edit(data):
            return data.replace(b'"step"', b'"stop"')

        for step in checkpoint_steps(self.run_dir):
            directory = self.run_dir / "checkpoints" / f"step-{step}"
            self.newest = directory
            self.damaged("trainer_state/position.json", edit)
            manifest = json.loads((directory / "manifest.json").read_text())
            for entry in manifest["files"]:
                if entry["file"] == "trainer_state/position.json":
                    entry["xxh64"] = xxh64((directory / entry["file"]).read_bytes())
            (directory / "manifest.json").write_text(json.dumps(manifest))
        self.resume(self.run_dir, "--set", "steps=12", code=REFUSED, says="position.json")

    def test_configurations_of_other_programs(self):
        newest = self.dir / "copy"
        for change in ({"torch_dtype": None}, {"dtype": 5}, {"training": 5}, {"max_position_embeddings": None}):
            with self.subTest(change):
                shutil.copytree(self.newest, newest)
                config = json.loads((newest / "config.json").read_text())
                config.pop("training")
                (newest / "config.json").write_text(json.dumps({**config, **change}))
                result = self.run_program("generate", "-m", newest, "-p", "a", "-n", "1")
                self.assertIn(result.returncode, (DONE, REFUSED), result.err)
                self.assertNotIn("json.exception", result.err)
                shutil.rmtree(newest)

    def test_no_good_checkpoint_is_left(self):
        for step in checkpoint_steps(self.run_dir):
            (self.run_dir / "checkpoints" / f"step-{step}" / "model.safetensors").write_bytes(b"x")
        self.resume(self.run_dir, "--set", "steps=12", code=REFUSED, says=["no checkpoint verifies", "step 10", "step 5"])
        self.expect(REFUSED, "eval", "-m", self.run_dir, "--data", self.text, says="no checkpoint verifies")

    def test_verify_names_the_file(self):
        self.expect(DONE, "inspect", self.run_dir, "--verify")
        json.loads(self.expect(DONE, "inspect", self.run_dir, "--verify", "--json").out)
        self.damaged("model.safetensors", lambda d: d[:-1])
        self.expect(REFUSED, "inspect", self.run_dir, "--verify", says=["step-10", "model.safetensors has"])
        for verb in (["inspect", self.run_dir], ["generate", "-m", self.run_dir, "-p", "a", "-n", "2"], ["eval", "-m", self.run_dir, "--data", self.text]):
            self.expect(DONE, *verb, says=["step 10 is damaged", "using step 5"])
        self.expect(REFUSED, "inspect", self.newest, "--verify", says=["model.safetensors has"])

    def test_model_directories_that_lie(self):
        def header(change):
            def edit(data):
                n = int.from_bytes(data[:8], "little")
                text = json.dumps(change(json.loads(data[8:8 + n]))).encode()
                return len(text).to_bytes(8, "little") + text + data[8 + n:]
            return edit

        def drop(h):
            del h["model.norm.weight"]
            return h

        def reshape(h):
            h["model.norm.weight"]["shape"] = [8, 2]
            return h

        pristine = (self.newest / "model.safetensors").read_bytes()
        for edit, says in [(header(drop), "model.norm.weight"), (header(reshape), ["model.norm.weight", "[16]", "[8,2]"]), (lambda d: d[:len(d) // 2], "model.safetensors"),
                           (lambda d: b"", "model.safetensors"), (lambda d: (1 << 62).to_bytes(8, "little") + d[8:], "model.safetensors"), (lambda d: d[:8] + b"{" * 50, "model.safetensors")]:
            with self.subTest(says):
                (self.newest / "model.safetensors").write_bytes(edit(bytearray(pristine)))
                self.expect(REFUSED, "eval", "-m", self.newest, "--data", self.text, says=says)
        (self.newest / "model.safetensors").write_bytes(pristine)
        config = json.loads((self.newest / "config.json").read_text())
        for change, says in [({"model_type": "deepsek_v3"}, ["deepsek_v3", "deepseek_v3"]), ({"hidden_size": 32}, ["model.norm.weight: expected [32], file has [16]"]), ({"num_hidden_layers": 3}, "model.layers.2"),
                             ({"hidden_size": "wide"}, "hidden_size"), ({"num_hidden_layers": 10**9}, "num_hidden_layers")]:
            with self.subTest(change):
                (self.newest / "config.json").write_text(json.dumps({**config, **change}))
                self.expect(REFUSED, "eval", "-m", self.newest, "--data", self.text, says=says)
        self.expect(REFUSED, "eval", "-m", self.dir / "nowhere", "--data", self.text, says="nowhere")
        self.expect(REFUSED, "generate", "-m", self.dir, "-p", "x", says=str(self.dir))


class NotFinite(Case):
    def stopped_after_step_10(self, tensor, *settings):
        """The error of a run that goes on from step 10 with a first weight of `tensor` that is nearly the largest float; checks that step 11 is not kept."""
        run = self.dir / "run"
        self.train(run, change={"steps": 10, "checkpoint_every": 1})
        before = losses(run)
        set_weight(run / "checkpoints" / "step-10", tensor, 3e38)
        kept = weights(run)
        sets = [part for s in settings for part in ("--set", s)]
        result = self.resume(run, "--set", "steps=20", *sets, code=FAILED, says=[f"the last good checkpoint is {run}/checkpoints/step-10; lower ", " and --resume"])
        self.assertEqual(checkpoint_steps(run)[-1], 10)
        self.assertEqual(weights(run), kept)
        self.assertEqual({s: l for s, l in losses(run).items() if s <= 10}, before)
        return result.err

    def test_a_loss_that_is_not_finite_stops_before_any_weight_moves(self):
        said = self.stopped_after_step_10("model.norm.weight")
        # Weights are looked at before gradients: all of them were finite still.
        self.assertRegex(said, r"step 11: the loss is not finite; first bad tensor: model\.\S+ \(gradient\)\n")

    def test_weights_that_leave_the_finite_numbers_are_not_kept(self):
        # The row of a byte that the text does not have: loss and norm of step 11 are numbers, and decay multiplies the row by 1 - 1 * 10.
        self.assertNotIn(0, self.text.read_bytes())
        said = self.stopped_after_step_10("model.embed_tokens.weight", "lr=1", "weight_decay=10", "schedule=constant")
        self.assertIn("step 11: a weight is not finite, nothing is saved; first bad tensor: model.embed_tokens.weight\n", said)

    def test_a_checkpoint_with_nan_in_a_weight_is_not_good(self):
        run, tensor = self.dir / "run", "model.layers.1.mlp.experts.2.up_proj.weight"
        self.train(run, change={"steps": 10})
        set_weight(run / "checkpoints" / "step-10", tensor, float("nan"))
        self.resume(run, "--set", "steps=12", says=["step 10", tensor, "not finite", "using step 5", "at step 5"])
        for step in checkpoint_steps(run):
            set_weight(run / "checkpoints" / f"step-{step}", tensor, float("inf"))
        self.resume(run, "--set", "steps=14", code=REFUSED, says=["no checkpoint verifies", tensor])


if __name__ == "__main__":
    unittest.main()
