"""birkhoff plan: on figures that are given, so that nothing depends on the machine; against what runs need and write; bad input."""
import json
import unittest

from support import DONE, REFUSED, USAGE, SMALL, Case, checkpoint_steps

MACHINE = {"cpu": "a processor", "cores": 2, "memory_gib": 24, "gemm_gflops": 170, "read_gbs": 20, "efficiency": 0.5}


class Plan(Case):
    def setUp(self):
        super().setUp()
        self.figures = self.dir / "figures.json"
        self.figures.write_text(json.dumps({"measured": MACHINE}))

    def plan(self, *arguments):
        return json.loads(self.expect(DONE, "plan", *arguments, "--measured", self.figures, "--json").out)

    def test_one_machine(self):
        p = self.plan("demo", "--tokens", "2.048e6")
        self.assertEqual(p["steps"], 2000)
        self.assertEqual([s["split"] for s in p["splits"]], ["data"])
        self.assertTrue(p["splits"][0]["fits"])
        self.assertEqual(p["measured"], MACHINE)
        text = self.expect(DONE, "plan", "demo", "--tokens", "2048000", "--measured", self.figures).out
        for part in ("2000 steps of 1024", "a processor", "170 GFLOP/s", "fits", "checkpoint"):
            self.assertIn(part, text)
        self.assertNotIn("the fewest machines", text)

    def test_does_not_fit(self):
        p = self.plan("mhc-3b", "--tokens", "39.3e9")
        self.assertFalse(p["splits"][0]["fits"])
        self.assertGreater(p["splits"][0]["memory_bytes"]["total"], 24 << 30)
        fewest = {s["split"]: s["machines"] for s in p["smallest"]}
        self.assertEqual(sorted(fewest), ["experts", "experts, moments"])
        self.assertEqual([(s["split"], s["machines"]) for s in p["never"]], [("data", 320), ("data, moments", 320)])
        text = self.expect(DONE, "plan", "mhc-3b", "--tokens", "39.3e9", "--measured", self.figures).out
        self.assertIn("does not fit, needs", text)
        self.assertIn("the fewest machines that hold it", text)
        self.assertIn("no number of machines: on 320, the most it can use, each still needs", text)
        text = self.expect(DONE, "plan", "mhc-3b", "--tokens", "39.3e9", "--measured", self.figures, "--machines", "8").out
        self.assertIn("\n8 machines\n", text)
        for split, machines in fewest.items():  # as many hold it, one fewer does not
            for m, fits in ((machines, True), (machines - 1, False)):
                if m == 1:
                    continue
                found = {s["split"]: s for s in self.plan("mhc-3b", "--tokens", "39.3e9", "--machines", m)["splits"]}
                self.assertEqual(found[split]["fits"], fits, f"{split} on {m}")

    def test_other_machines(self):
        one = self.plan("small", "--tokens", "1e9", "--machines", 4)["splits"]
        more = self.plan("small", "--tokens", "1e9", "--machines", 4, "--cores", 8, "--bandwidth", 100)["splits"]
        for a, b in zip(one, more):
            self.assertAlmostEqual(a["step_s"]["compute"] / b["step_s"]["compute"], 4)
            self.assertAlmostEqual(a["step_s"]["network"] / b["step_s"]["network"], 10)
        self.assertTrue(one[0]["fits"])
        little = self.plan("small", "--tokens", "1e9", "--machines", 4, "--memory", 2)["splits"]
        self.assertFalse(little[0]["fits"])
        self.assertEqual(little[0]["recompute"], "layer")
        self.assertAlmostEqual(little[0]["step_s"]["compute"] / one[0]["step_s"]["compute"], 4 / 3)

    def test_settings(self):
        config = self.dir / "config.json"
        config.write_text(json.dumps(SMALL))
        p = self.plan(config, "--tokens", 1000, "--set", "batch_size=4", "--machines", 4)
        self.assertEqual(p["tokens_per_step"], 128)
        self.assertEqual(len(p["splits"]), 4)

    def test_checkpoint_size(self):
        run = self.dir / "run"
        self.train(run)
        written = sum(f.stat().st_size for f in (run / "checkpoints" / f"step-{checkpoint_steps(run)[-1]}").rglob("*.safetensors"))
        planned = self.plan(run / "config.json", "--tokens", 1000)["checkpoint"]["bytes"]
        self.assertLessEqual(planned, written)
        self.assertLess(written - planned, 16384)  # headers, padding

    def test_memory_of_a_run(self):
        bench = self.expect(DONE, "bench", "train", "--preset", "demo", "--steps", 2, "--json")
        self.assertRegex(bench.err, "3 steps to warm up\n(.*\n)*birkhoff: warmed up; measuring 2 steps\n(.*\n)*step 5/5")
        measured = json.loads(bench.out)
        planned = self.plan("demo", "--tokens", 2048)["splits"][0]["memory_bytes"]["total"] / 2**20
        self.assertLess(abs(measured["rss_mib"] - planned), 0.1 * measured["rss_mib"])

    def test_measures(self):
        p = json.loads(self.expect(DONE, "plan", "demo", "--tokens", 2048, "--set", "seq_len=64", "--json").out)
        for key in ("gemm_gflops", "read_gbs", "memory_gib", "efficiency", "cores"):
            self.assertGreater(p["measured"][key], 0)
        self.figures.write_text(json.dumps(p))
        self.assertEqual(self.plan("demo", "--tokens", 2048, "--set", "seq_len=64"), p)

    def test_bad_input(self):
        good = ("--tokens", 1000, "--measured", self.figures)
        self.expect(USAGE, "plan", "dmeo", *good, says='unknown preset "dmeo"; did you mean "demo"?')
        self.expect(USAGE, "plan", "demo", says="--tokens")
        self.expect(USAGE, "plan", "--tokens", 1000, says="what")
        for tokens in ("0", "-5", "many", "nan", "1e30", "0.5"):
            self.expect(USAGE, "plan", "demo", f"--tokens={tokens}", "--measured", self.figures, says="--tokens")
        for flag, values in {"--machines": ("0", "-1", "two", "1.5"), "--cores": ("0", "x"), "--memory": ("0", "-1", "nan"), "--bandwidth": ("0", "fast", "nan")}.items():
            for value in values:
                self.expect(USAGE, "plan", "demo", *good, f"{flag}={value}", says=flag)
        self.expect(REFUSED, "plan", "demo", *good, "--machines", 9, says="machines: 9 are more than the sequences of a step, batch_size 4")
        self.expect(USAGE, "plan", "demo", *good, "--set", "hiden_size=3", says='did you mean "hidden_size"')
        self.expect(REFUSED, "plan", "demo", *good, "--set", "num_experts_per_tok=99", says="num_experts_per_tok: 99")
        self.expect(REFUSED, "plan", self.dir / "none.json", *good, says="none.json")
        self.expect(USAGE, "plan", self.dir, *good, says="is a directory")
        (self.dir / "list.json").write_text("[1]")
        self.expect(REFUSED, "plan", self.dir / "list.json", *good, says="not a JSON object")

    def test_bad_figures(self):
        good = ("plan", "demo", "--tokens", 1000, "--measured", self.figures)
        self.expect(REFUSED, *good[:-1], self.dir / "none.json", says="none.json")
        for content, says in ((json.dumps(MACHINE), 'no object "measured"'), ("{", "figures.json"), ("[]", 'no object "measured"'),
                              (json.dumps({"measured": {**MACHINE, "efficiency": 0}}), "efficiency: must be positive, is 0"),
                              (json.dumps({"measured": {**MACHINE, "read_gbs": None}}), "read_gbs: expected a number, is null")):
            self.figures.write_text(content)
            self.expect(REFUSED, *good, says=says)


if __name__ == "__main__":
    unittest.main()
