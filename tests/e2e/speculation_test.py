"""Drafts of prediction modules, by the program: a model that has learnt a text is written sooner, and as it is without."""
import json
import unittest

from support import DONE, USAGE, Case, settings

LEARNT = b"she sells sea shells by the sea shore, "
MODEL = {"num_nextn_predict_layers": 1, "hidden_size": 32, "intermediate_size": 64, "moe_intermediate_size": 16, "batch_size": 4}
TRAINING = {"steps": 250, "lr": 1e-2, "checkpoint_every": 0, "dtype": "fp32"}


class Speculation(Case):
    def train_on(self, text, **changes):
        run, data = self.dir / "run", self.dir / "learnt.txt"
        data.write_bytes(text)
        self.expect(DONE, "train", *settings(**{**MODEL, **TRAINING, **changes}), "--data", data, "--out", run, "--quiet")
        return run

    def lines(self, run, *more):
        return [json.loads(line) for line in self.expect(DONE, "generate", "-m", run, "--json", "--mla", "expanded", *more).out.splitlines()]

    def test_what_was_learnt_is_guessed_right(self):
        run = self.train_on(LEARNT * 100)
        prompts = self.dir / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in ("she sells", "shore, she", "s")))
        for plain in (["--temp", "0"], ["--temp", "0.7", "--samples", "2"]):
            plain = ["--prompts", prompts, "-n", "60", *plain]
            want = self.lines(run, *plain)
            for more in ([], ["--parallel", "4"]):
                for most in ("1", "3"):
                    drafted = accepted = 0
                    said = self.lines(run, *plain, *more, "--draft", most, "--draft-by", "mtp")
                    for one in said:
                        drafted, accepted = drafted + one.pop("drafted"), accepted + one.pop("accepted")
                    self.assertEqual(said, want, more)
                    self.assertGreater(accepted / drafted, 0.5 if most == "1" else 0.3, (plain, more, most))
        self.expect(DONE, "generate", "-m", run, "-p", "she", "-n", "30", "--draft", "1", "--draft-by", "mtp", says="drafted tokens were accepted")
        self.expect(USAGE, "generate", "-m", run, "-p", "she", "--draft", "1", "--draft-by", "luck", says=["--draft-by", "ngram, mtp"])

    def test_models_without_modules(self):
        run = self.train_on(LEARNT * 20, num_nextn_predict_layers=0, steps=2)
        self.expect(USAGE, "generate", "-m", run, "-p", "she", "-n", "3", "--draft", "1", "--draft-by", "mtp", says=["num_nextn_predict_layers", "n-grams"])
        self.expect(DONE, "generate", "-m", run, "-p", "she", "-n", "3", "--draft-by", "mtp")

    def test_modules_of_a_gguf_file(self):
        run = self.train_on(LEARNT * 100, residual="plain", hc_mult=4, kv_lora_rank=32, num_hidden_layers=2, model_type="deepseek_v3", n_group=1, topk_group=1, norm_topk_prob=True)
        model = self.dir / "model.gguf"
        self.expect(DONE, "convert", "-m", run, "--gguf", model)
        text = ["--tokens-file", self.dir / "ids", "-n", "40", "--temp", "0"]
        (self.dir / "ids").write_text(" ".join(map(str, LEARNT)))
        (want,), (said,) = self.lines(model, *text), self.lines(model, *text, "--draft", "1", "--draft-by", "mtp")
        self.assertGreater(said.pop("accepted") / said.pop("drafted"), 0.5)
        self.assertEqual(said, want)


if __name__ == "__main__":
    unittest.main()
