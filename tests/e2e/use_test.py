"""Trained models in use: other lengths, settings and directories than those of their training."""
import json
import math
import shutil
import unittest

from support import DONE, FAILED, REFUSED, USAGE, Case, checkpoint_steps, set_weight


class Use(Case):
    def newest(self, run):
        return run / "checkpoints" / f"step-{checkpoint_steps(run)[-1]}"

    def test_bytes_in_a_larger_vocabulary(self):
        run = self.dir / "run"
        self.train(run, change={"vocab_size": 300, "steps": 5})
        loss = json.loads(self.expect(DONE, "eval", "-m", run, "--data", self.text, "--validation", "--json").out)
        self.assertEqual(loss["nats_per_token"], loss["nats_per_byte"])
        self.assertEqual(len(self.expect(DONE, "generate", "-m", run, "-p", "a", "-n", "40", "--temp", "5").stdout), 41)
        # Of a directory of unknown origin nobody knows that its tokens are bytes.
        config = json.loads((self.newest(run) / "config.json").read_text())
        del config["training"]
        (self.newest(run) / "config.json").write_text(json.dumps(config))
        self.expect(REFUSED, "generate", "-m", self.newest(run), "-p", "a", says=["300 tokens", "no tokenizer"])

    def test_longer_than_the_usual_4096_positions(self):
        run, ids = self.dir / "run", self.dir / "ids"
        self.train(run, change={"steps": 1, "max_position_embeddings": 4200})
        ids.write_text("7 " * 4150)
        self.expect(DONE, "generate", "-m", run, "--tokens-file", ids, "-n", "3")
        self.expect(DONE, "eval", "-m", run, "--data", self.text, "--seq-len", "4150")
        self.expect(REFUSED, "generate", "-m", run, "--tokens-file", ids, "-n", "51", says="4200")
        self.expect(REFUSED, "eval", "-m", run, "--data", self.text, "--seq-len", "4201", says="4200")

    def test_settings_over_the_models_own(self):
        run, ids, out = self.dir / "run", self.dir / "ids", self.dir / "logits"
        self.train(run, change={"steps": 1})
        ids.write_text("1 2 3 4 5")
        found = {}
        for name, more in [("", []), ("fp32", ["--set", "dtype=fp32"]), ("flag", ["--dtype", "fp32"]), ("rope", ["--set", "dtype=fp32", "--set", "rope_theta=2"])]:
            self.expect(DONE, "logits", "-m", run, "--tokens-file", ids, "--out", out, *more)
            found[name] = out.read_bytes()
        self.assertEqual(found["fp32"], found["flag"])
        self.assertEqual(len({found[""], found["fp32"], found["rope"]}), 3)
        for verb in (["generate", "-m", run, "-p", "a"], ["eval", "-m", run, "--data", self.text], ["logits", "-m", run, "--tokens-file", ids, "--out", out]):
            self.expect(USAGE, *verb, "--set", "lrr=3", says='unknown setting "lrr"')
            self.expect(REFUSED, *verb, "--set", "hidden_size=24", says="shape")

    def test_a_weight_that_is_no_number(self):
        run, ids = self.dir / "run", self.dir / "ids"
        self.train(run, change={"steps": 1})
        set_weight(self.newest(run), "model.norm.weight", math.nan)
        ids.write_text("1 2 3")
        self.expect(FAILED, "generate", "-m", self.newest(run), "-p", "a", says="not finite")
        self.expect(FAILED, "logits", "-m", self.newest(run), "--tokens-file", ids, "--out", self.dir / "logits", says="not finite")
        self.assertFalse((self.dir / "logits").exists())

    def test_a_run_before_its_first_checkpoint(self):
        run = self.dir / "run"
        self.train(run, change={"steps": 1})
        parameters = json.loads(self.expect(DONE, "inspect", run, "--json").out)["parameters"]
        shutil.rmtree(self.newest(run))
        self.assertEqual(json.loads(self.expect(DONE, "inspect", run, "--json").out)["parameters"], parameters)
        self.expect(REFUSED, "inspect", self.dir / "absent", says="no such directory")

    def test_resumed_with_other_data(self):
        run = self.dir / "run"
        self.train(run, change={"steps": 5})
        other = self.dir / "other.txt"
        other.write_bytes(self.text.read_bytes())
        self.resume(run, "--set", "steps=6", "--data", other, says=["data:", "other.txt"])
        self.resume(run, "--set", "steps=3", says=["step 6 of 3", "nothing is left"])

    def test_stopped_runs_have_a_report(self):
        run = self.dir / "run"
        self.train(run, change={"steps": 10})
        (run / "report.html").unlink()
        set_weight(self.newest(run), "model.norm.weight", 3e38)
        self.resume(run, "--set", "steps=20", code=FAILED, says="not finite")
        self.assertGreater((run / "report.html").stat().st_size, 10000)


if __name__ == "__main__":
    unittest.main()
