"""Evaluation by tasks, by the program: what it writes, that it goes on where it was killed, and what it refuses."""
import json
import random
import signal
import subprocess
import time
import unittest

from support import DONE, INTERRUPTED, PROGRAM, REFUSED, USAGE, Case

TASK = {"name": "capitals", "documents": {"file": "capitals.jsonl", "form": "JSON lines of country and capital"},
        "shots": {"count": 1, "samples": [{"country": "Italy", "capital": "Rome"}]},
        "text": "The capital of {{country}} is", "target": "{{capital}}", "generate": {"until": ["\n"], "max_tokens": 4},
        "metrics": [{"name": "exact_match"}]}


class EvalTasks(Case):
    def setUp(self):
        super().setUp()
        self.model = self.dir / "run"
        self.train(self.model, "--quiet", change={"steps": 2, "max_position_embeddings": 512, "dtype": "fp32"})
        self.number = 0

    def evaluate(self, *more, code=DONE, says=(), out=None, tasks="mmlu_stem,gsm8k"):
        self.number += 1
        out = out or self.dir / f"out{self.number}"
        arguments = ["eval", "-m", self.model, "--tasks", tasks, "--sample", "--max-gen", "4", "--out", out]
        return out, self.expect(code, *arguments, *more, says=says)

    @staticmethod
    def results(out):
        return json.loads((out / "results.json").read_text())

    def scores(self, out):
        """Without what depends on time and on what was known."""
        measured = {"seconds", "tokens_per_s", "answers_kept", "computed_tokens", "written_tokens"}
        return [{name: {k: v for k, v in r.items() if k not in measured} for name, r in self.results(out)[part].items()} for part in ("results", "groups")]

    @staticmethod
    def samples(out):
        return {f.name: f.read_text() for f in sorted(out.glob("samples_*.jsonl"))}

    def keys(self, out):
        return [(f.name, json.loads(line)["key"]) for f in (out / "answers").glob("*.jsonl") for line in f.read_text().splitlines()]

    def test_every_task_on_the_questions_that_are_built_in(self):
        self.evaluate(tasks="all", code=USAGE, says=["--allow-code", "programs"])
        out, done = self.evaluate("--limit", "1", tasks="mmlu,hellaswag,piqa,bbh,drop,gsm8k,hendrycks_math,minerva_math,nq_open,triviaqa")
        results = self.results(out)
        self.assertEqual(len(results["results"]), 57 + 27 + 7 + 7 + 6)
        for name, r in results["results"].items():
            self.assertEqual(r["n"], 1, name)
            self.assertGreater(r["gold_nats_per_byte"], 0, name)
        self.assertEqual(results["groups"]["mmlu"]["n"], 57)
        self.assertIn("mmlu_anatomy", done.out)
        (sample,) = map(json.loads, self.samples(out)["samples_piqa.jsonl"].splitlines())
        self.assertEqual([set(c) for c in sample["choices"]], [{"continuation", "logprob", "is_greedy", "tokens"}] * 2)
        (sample,) = map(json.loads, self.samples(out)["samples_gsm8k.jsonl"].splitlines())
        self.assertEqual(set(sample["filters"]), {"strict-match", "flexible-extract"})
        self.assertIn("<html", (out / "report.html").read_text())

    def test_scores_do_not_depend_on_threads_and_company(self):
        out, _ = self.evaluate("--threads", "2")
        alone, _ = self.evaluate("--threads", "1", tasks="gsm8k")
        self.assertEqual(self.scores(alone)[0]["gsm8k"], self.scores(out)[0]["gsm8k"])
        self.assertEqual(self.samples(alone)["samples_gsm8k.jsonl"], self.samples(out)["samples_gsm8k.jsonl"])

    def test_goes_on_where_it_was_killed(self):
        whole, _ = self.evaluate()
        out = self.dir / "killed"
        command = [PROGRAM, "eval", "-m", str(self.model), "--tasks", "mmlu_stem,gsm8k", "--sample", "--max-gen", "4", "--out", str(out)]
        moments = random.Random(5)
        for i in range(6):
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(moments.uniform(0.02, 0.3))
            child.send_signal(signal.SIGKILL if i % 2 else signal.SIGINT)
            self.assertIn(child.wait(), (DONE, INTERRUPTED, -signal.SIGKILL, -signal.SIGINT))
        self.evaluate(out=out)
        self.assertEqual(self.scores(out), self.scores(whole))
        self.assertEqual(self.samples(out), self.samples(whole))
        keys = self.keys(out)
        self.assertEqual(len(keys), len(set(keys)))
        self.assertEqual(sorted(keys), sorted(self.keys(whole)))

    def test_answers_are_kept_for_other_runs_and_damage_is_said(self):
        out, _ = self.evaluate()
        again, _ = self.evaluate("--answers", out / "answers")
        counts = self.results(again)["counts"]
        self.assertEqual((counts["computed_tokens"], counts["answers_kept"]), (0, counts["requests"]))
        self.assertEqual(self.scores(again), self.scores(out))
        file = out / "answers" / "gsm8k.jsonl"
        lines = file.read_text().splitlines()
        file.write_text("\n".join([lines[0][:30], *lines[1:]]) + "\n")
        third, _ = self.evaluate("--answers", out / "answers", says=["gsm8k.jsonl", "1 damaged"])
        self.assertEqual(self.scores(third), self.scores(out))

    def test_tasks_of_ones_own_and_comparing(self):
        data = self.dir / "data"
        data.mkdir()
        (data / "capitals.jsonl").write_text("".join(json.dumps({"country": c, "capital": c[::-1]}) + "\n" for c in ("France", "Spain", "Peru")))
        task = self.dir / "capitals.json"
        task.write_text(json.dumps(TASK))
        outs = []
        for dtype in ("fp32", "bf16"):
            outs.append(self.dir / dtype)
            self.expect(DONE, "eval", "-m", self.model, "--tasks", task, "--data-dir", data, "--dtype", dtype, "--out", outs[-1])
        samples = [json.loads(line) for line in self.samples(outs[0])["samples_capitals.jsonl"].splitlines()]
        self.assertEqual(samples[2]["context"], "The capital of Italy is Rome\n\nThe capital of Peru is")
        compared = self.expect(DONE, "eval", "--compare", *outs, "--json", "--out", self.dir / "both")
        (comparison,) = json.loads(compared.out)["comparisons"]
        self.assertEqual(comparison["tasks"]["capitals"]["n"], 3)
        self.assertTrue((self.dir / "both" / "comparison.html").exists())
        chosen = self.dir / "chosen"
        self.expect(DONE, "eval", "-m", self.model, "--tasks", task, "--data-dir", data, "--docs", "2,0", "--out", chosen)
        self.assertEqual([json.loads(line)["doc_id"] for line in self.samples(chosen)["samples_capitals.jsonl"].splitlines()], [0, 2])
        (data / "capitals.jsonl").write_text('{"country": "France", "capital": "Paris"}\n{"country": "Spain"}\n{broken\n')
        self.expect(REFUSED, "eval", "-m", self.model, "--tasks", task, "--data-dir", data, "--out", chosen, says=["capitals.jsonl"])

    def test_lists_and_judges_without_a_model(self):
        self.assertIn("hellaswag", self.expect(DONE, "eval", "--list", "--sample").out)
        listed = json.loads(self.expect(DONE, "eval", "--list", "--json", "--sample").out)
        self.assertIn("mmlu", listed["groups"])
        lines = [{"task": "gsm8k", "references": "so #### 18", "prediction": "#### 18"}, {"task": "gsm8k", "references": "#### 18", "prediction": "#### 19"}]
        said = subprocess.run([PROGRAM, "eval", "--score", "--jsonl", "--sample"], input="".join(json.dumps(x) + "\n" for x in lines) + "{no\n", capture_output=True, text=True, timeout=60)
        first, second, third = map(json.loads, said.stdout.splitlines())
        self.assertEqual((first["filters"]["strict-match"]["exact_match"], second["filters"]["strict-match"]["exact_match"]), (1, 0))
        self.assertEqual(third["line"], 3)

    def test_what_is_refused(self):
        self.evaluate(tasks="hellaswagg", code=USAGE, says="did you mean \"hellaswag\"")
        self.evaluate("--limit", "0", code=USAGE, says="--limit")
        self.evaluate("--docs", "x", code=USAGE, says="--docs")
        self.evaluate("--thinking", code=USAGE, says="--chat")
        self.evaluate("--context", "100000", code=USAGE, says=["--context", "512"])
        self.evaluate("--context", "64", says="lost their beginning")
        self.expect(USAGE, "eval", "-m", self.model, "--tasks", "piqa", "--sample", says="--out")
        self.expect(USAGE, "eval", "--tasks", "piqa", "--sample", "--out", self.dir / "o", says="-m")
        self.expect(USAGE, "eval", "-m", self.model, says="--tasks")
        self.expect(REFUSED, "eval", "-m", self.model, "--tasks", "piqa", "--data-dir", self.dir, "--out", self.dir / "o", says=["piqa/valid.jsonl", "eval_data.py"])
        self.expect(REFUSED, "eval", "--compare", self.dir, self.dir, says="results.json")


if __name__ == "__main__":
    unittest.main()
