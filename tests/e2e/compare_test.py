"""birkhoff compare: studies and grids run, go on after a kill without repeating what is finished, survive a failing variant, refuse wrong files;
every study of studies/ runs in a shortened form."""
import hashlib
import json
import signal
import subprocess
import sys
import time
import unittest

from support import DONE, FAILED, INTERRUPTED, PROGRAM, REFUSED, REPOSITORY, SMALL, USAGE, Case

STUDIES = sorted((REPOSITORY / "studies").glob("*.json"))


def contents(run):
    """{file: (bytes, time of the last change)} of a run's directory."""
    return {str(p.relative_to(run)): (hashlib.sha1(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in sorted(run.rglob("*")) if p.is_file() and not p.is_symlink()}


class CompareCase(Case):
    def study(self, **changes):
        study = {"claim": "hyper-connections are no worse", "source": "a test", "steps": 8, "seeds": 2, "data": ["text.txt"],
                 "set": {k: v for k, v in SMALL.items() if k not in ("steps", "residual")} | {"checkpoint_every": 0, "eval_every": 4, "gain_every": 4},
                 "variants": [{"name": "plain", "set": {"residual": "plain"}}, {"name": "mhc", "set": {"residual": "mhc"}}]} | changes
        path = self.dir / "study.json"
        path.write_text(json.dumps(study))
        return path

    def compare(self, code, *arguments, **options):
        return self.expect(code, "compare", "--out", self.dir / "out", *arguments, **options)

    def results(self):
        return json.loads((self.dir / "out" / "results.json").read_text())


class Studies(CompareCase):
    def test_a_study_from_its_file_to_its_report(self):
        out = self.compare(DONE, "--study", self.study()).out
        self.assertRegex(out, r"(?m)^variant +seeds +val loss \(nats per byte\) +difference \[95 %\] +ms/step +MiB +max gain +of a token +MaxVio$")
        self.assertRegex(out, r"(?m)^plain +2 +\d\.\d{4} \+- \d\.\d{4} ")
        self.assertRegex(out, r"(?m)^mhc +2 +\d\.\d{4} \+- \d\.\d{4} +[+-]\d\.\d{4} \[[+-]\d+\.\d{4}, [+-]\d+\.\d{4}\] ")
        r = self.results()
        runs = {(v["name"], run["seed"]): run for v in r["variants"] for run in v["runs"]}
        for (name, seed), run in runs.items():
            own = json.loads((self.dir / "out" / "runs" / name / f"seed-{seed}" / "run.json").read_text())
            self.assertEqual(run["status"], "done")
            self.assertEqual(run["figures"]["val_loss"], own["final_val_loss"])
        losses = {k: run["figures"]["val_loss"] for k, run in runs.items()}
        self.assertEqual(len(set(losses.values())), 4, "seeds and variants differ")
        row = r["summary"]["variants"][1]
        self.assertAlmostEqual(row["difference"]["mean"], sum(losses["mhc", s] - losses["plain", s] for s in (1, 2)) / 2, places=12)
        self.assertNotIn("hidden_size", r["variants"][0]["differing"])
        self.assertEqual(r["variants"][1]["differing"]["residual"], "mhc")
        self.assertNotIn(str(self.dir), json.dumps({k: v for k, v in r.items() if k != "command"}), "results name no place of this machine")
        self.assertLess((self.dir / "out" / "report.html").stat().st_size, 2 << 20)

    def test_report_and_table_without_the_runs(self):
        first = self.compare(DONE, "--study", self.study())
        page = (self.dir / "out" / "report.html").read_bytes()
        again = self.expect(DONE, "compare", "--results", self.dir / "out" / "results.json", "--out", self.dir / "again")
        self.assertEqual(again.out, first.out)
        self.assertEqual((self.dir / "again" / "report.html").read_bytes(), page)
        self.assertEqual(sorted(p.name for p in (self.dir / "again").iterdir()), ["report.html"])

    def test_results_without_runs_are_left_alone(self):
        for name in ("results.json", "report.html"):
            (self.dir / "out").mkdir(exist_ok=True)
            (self.dir / "out" / name).write_text("precious")
            self.compare(REFUSED, "--study", self.study(), says=["already holds " + name, "choose another --out"])
            self.assertEqual([p.name for p in (self.dir / "out").iterdir()], [name])
            self.assertEqual((self.dir / "out" / name).read_text(), "precious")
            (self.dir / "out" / name).unlink()

    def test_a_grid(self):
        base = self.dir / "base.json"
        base.write_text(json.dumps({**SMALL, "steps": 3, "checkpoint_every": 0}))
        found = self.compare(DONE, "--config", base, "--vary", "residual=plain,mhc", "--vary", "lr=1e-3,2e-3", "--seeds", 1, "--data", self.text, "--json")
        rows = json.loads(found.out)["variants"]
        self.assertEqual([r["name"] for r in rows], ["residual=plain lr=1e-3", "residual=plain lr=2e-3", "residual=mhc lr=1e-3", "residual=mhc lr=2e-3"])
        self.assertIsNone(rows[1]["difference"]["low"], "one seed has no interval")

    def test_dry_run_lists_and_trains_nothing(self):
        plan = json.loads(self.compare(DONE, "--study", self.study(), "--dry-run", "--json", "--threads", 2).out)
        self.assertEqual([(r["variant"], r["seed"], r["state"]) for r in plan["runs"]], [("plain", 1, "new"), ("mhc", 1, "new"), ("plain", 2, "new"), ("mhc", 2, "new")])
        self.assertEqual((plan["side_by_side"], plan["threads_each"]), (2, 1))
        self.assertGreater(plan["runs"][0]["memory_bytes"], 1 << 20)
        self.assertGreater(plan["seconds"], 0)
        self.assertFalse((self.dir / "out").exists())
        self.assertRegex(self.compare(DONE, "--study", self.study(), "--dry-run").out, r"(?m)^mhc/seed-2 +new +\d+ +0:\d\d$")

    def test_threads_and_company_do_not_change_results(self):
        self.compare(DONE, "--study", self.study(), "--threads", 1)
        alone = [run["figures"]["val_loss"] for v in self.results()["variants"] for run in v["runs"]]
        self.expect(DONE, "compare", "--study", self.study(), "--out", self.dir / "other", "--threads", 3)
        other = json.loads((self.dir / "other" / "results.json").read_text())
        self.assertEqual([run["figures"]["val_loss"] for v in other["variants"] for run in v["runs"]], alone)


class GoingOn(CompareCase):
    def start(self, *arguments):
        return subprocess.Popen([PROGRAM, "compare", "--out", self.dir / "out", "--threads", "2", *map(str, arguments)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait_for_a_finished_run(self, process):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            done = [p.parent for p in self.dir.glob("out/runs/*/*/run.json") if "final_val_loss" in p.read_text()]
            if done:
                return done
            self.assertIsNone(process.poll(), "it ended before it was stopped")
            time.sleep(0.02)
        self.fail("no run finished")

    def long_study(self):
        return self.study(steps=150, seeds=3)

    def stopped_in_the_middle(self, number):
        study = self.long_study()
        with self.start("--study", study) as process:
            self.wait_for_a_finished_run(process)
            process.send_signal(number)
            out, told = process.communicate(timeout=60)
        done = [p.parent for p in self.dir.glob("out/runs/*/*/run.json") if "final_val_loss" in p.read_text()]
        self.assertLess(len(done), 6, "all was finished before the signal")
        return study, {run: contents(run) for run in done}, process.returncode, out, told

    def finish_and_check(self, study, before):
        self.compare(DONE, "--study", study, says=f"{len(before)} of 6 runs are already finished")
        for run, files in before.items():
            self.assertEqual(contents(run), files, f"{run} was touched")
        went_on = [run["figures"]["val_loss"] for v in self.results()["variants"] for run in v["runs"]]
        self.expect(DONE, "compare", "--study", study, "--out", self.dir / "whole")
        whole = json.loads((self.dir / "whole" / "results.json").read_text())
        self.assertEqual([run["figures"]["val_loss"] for v in whole["variants"] for run in v["runs"]], went_on)

    def test_killed_in_the_middle(self):
        study, before, code, _, _ = self.stopped_in_the_middle(signal.SIGKILL)
        self.assertEqual(code, -signal.SIGKILL)
        self.finish_and_check(study, before)

    def test_interrupted_in_the_middle(self):
        study, before, code, out, told = self.stopped_in_the_middle(signal.SIGINT)
        self.assertEqual((code, out), (INTERRUPTED, ""), told)
        self.assertIn("of 6 runs finished. Go on with the same command: " + PROGRAM, told)
        states = {json.loads(p.read_text())["status"] for p in self.dir.glob("out/runs/*/*/run.json")}
        self.assertLessEqual(states, {"done", "interrupted"}, "the running ones saved")
        self.finish_and_check(study, before)

    def test_a_finished_study_only_draws(self):
        study = self.study()
        first = self.compare(DONE, "--study", study).out
        before = {run: contents(run) for run in self.dir.glob("out/runs/*/seed-*") if run.is_dir()}
        self.assertEqual(self.compare(DONE, "--study", study).out, first)
        self.assertEqual({run: contents(run) for run in before}, before)

    def test_more_seeds_add_runs(self):
        self.compare(DONE, "--study", self.study())
        self.compare(DONE, "--study", self.study(), "--seeds", 3, says="4 of 6 runs are already finished")

    def test_changed_settings_are_refused_with_both_values(self):
        self.compare(DONE, "--study", self.study())
        study = self.study(set={**json.loads(self.study().read_text())["set"], "lr": 0.5})
        self.compare(REFUSED, "--study", study, says=["plain/seed-1", "lr", "0.003", "0.5"])
        self.compare(REFUSED, "--study", self.study(), "--set", "steps=9", says=["steps", "8", "9"])
        other = self.dir / "other.txt"
        other.write_bytes(self.text.read_bytes())
        self.compare(REFUSED, "--study", self.study(), "--data", other, says=["data", "text.txt", "other.txt"])

    def test_two_at_a_time_are_refused(self):
        with self.start("--study", self.long_study()) as process:
            self.wait_for_a_finished_run(process)
            self.compare(REFUSED, "--study", self.long_study(), says=["out", str(process.pid)])
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


class Failing(CompareCase):
    def test_a_failing_variant_is_reported_and_the_others_go_on(self):
        # Decay multiplies the matrices of wild by 1 - 1e10 in every step: no float holds them after five.
        wild = {"name": "wild", "set": {"lr": 1e6, "weight_decay": 1e4, "warmup_steps": 0, "schedule": "constant"}}
        study = self.study(variants=[{"name": "plain", "set": {"residual": "plain"}}, wild, {"name": "mhc", "set": {"residual": "mhc"}}])
        result = self.compare(FAILED, "--study", study, says=["wild/seed-1: failed with exit code 1", "not finite", "wild/seed-2: failed"])
        self.assertRegex(result.out, r"(?m)^wild +0 \(2 failed\) +- +- ")
        self.assertRegex(result.out, r"(?m)^mhc +2 ")
        r = self.results()
        self.assertEqual([run["status"] for run in r["variants"][1]["runs"]], ["failed", "failed"])
        self.assertIn("not finite", r["variants"][1]["runs"][0]["message"])
        self.compare(FAILED, "--study", study, says="4 of 6 runs are already finished")
        self.expect(DONE, "compare", "--study", self.study(), "--out", self.dir / "without")
        without = json.loads((self.dir / "without" / "results.json").read_text())
        losses = lambda v: [run["figures"]["val_loss"] for run in v["runs"]]
        self.assertEqual([losses(v) for v in (r["variants"][0], r["variants"][2])], [losses(v) for v in without["variants"]])

    def test_damaged_finished_runs_lose_nothing_of_the_others(self):
        study = self.study(seeds=1)
        self.compare(DONE, "--study", study)
        (self.dir / "out" / "runs" / "plain" / "seed-1" / "metrics.jsonl").write_text("")
        result = self.compare(FAILED, "--study", study, says="2 of 2 runs are already finished")
        self.assertRegex(result.out, r"(?m)^plain +0 \(1 failed\) ")
        self.assertRegex(result.out, r"(?m)^mhc +1 +\d\.\d{4} ")
        self.assertIn("no finished step", self.results()["variants"][0]["runs"][0]["message"])

    def test_a_loss_that_is_not_finite_is_no_number(self):
        study = self.study(seeds=1)
        self.compare(DONE, "--study", study)
        file = self.dir / "out" / "runs" / "mhc" / "seed-1" / "run.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"final_val_loss": None}))
        self.assertRegex(self.compare(DONE, "--study", study).out, r"(?m)^mhc +1 +- +- ")

    def test_missing_data_are_refused_before_the_first_run(self):
        self.compare(REFUSED, "--study", self.study(data=["missing.txt"]), says="missing.txt")
        self.assertFalse((self.dir / "out").exists())

    def test_wrong_study_files(self):
        self.compare(REFUSED, "--study", self.dir / "absent.json", says="absent.json")
        broken = self.dir / "broken.json"
        broken.write_text('{"claim": ')
        self.compare(REFUSED, "--study", broken, says="broken.json")
        self.compare(REFUSED, "--study", self.study(varints=[]), says=['unknown field "varints"', '"variants"'])
        self.compare(REFUSED, "--study", self.study(variants=[{"name": "a"}, {"name": "a"}]), says='two variants are named "a"')
        self.compare(USAGE, "--study", self.study(variants=[{"name": "a", "set": {"hidden_sise": 3}}]), says=['variant "a"', "hidden_size"])
        self.compare(REFUSED, "--study", self.study(data=["missing.txt"]), "--dry-run", says="missing.txt")

    def test_wrong_command_lines(self):
        self.compare(USAGE, says="--study FILE, or --preset P --vary")
        self.compare(USAGE, "--study", self.study(), "--vary", "lr=1,2", says="give a study or a grid")
        self.compare(USAGE, "--study", self.study(), "--preset", "tiny", says="--preset and --config belong to --vary")
        self.compare(USAGE, "--study", self.study(data=[]), says="no data")
        self.compare(USAGE, "--vary", "lr", "--data", self.text, says="key=a,b")
        self.compare(USAGE, "--vary", "lr=1,2", "--data", self.text, "--set", "lr=3", says=["--set lr=3", "lr=1"])
        self.compare(USAGE, "--vary", "lr=1,2", "--data", self.text, "--seeds", 0, says="--seeds")
        self.compare(REFUSED, "--results", self.study(), says="holds no results of a study")


class Shortened(CompareCase):
    """Every study of the repository, with few steps and one seed."""

    def test_all(self):
        self.assertGreaterEqual(len(STUDIES), 8)
        for study in STUDIES:
            with self.subTest(study.name):
                out = self.dir / study.stem
                self.expect(DONE, "compare", "--study", study, "--out", out, "--seeds", 1, "--data", self.text, "--set", "steps=2", "--set", "eval_every=1", "--set", "gain_every=1", "--set", "batch_size=1",
                            "--set", "warmup_steps=0", "--quiet")
                r = json.loads((out / "results.json").read_text())
                self.assertTrue(r["study"]["claim"] and r["study"]["source"])
                for v in r["variants"]:
                    self.assertEqual(v["runs"][0]["status"], "done", v["name"])
                if "axes" in r["study"]:
                    keys = set(r["settings"])
                    for v in r["variants"]:
                        keys |= set(v["runs"][0]["figures"]) | set(v["differing"])
                    self.assertLessEqual({r["study"]["axes"]["x"], r["study"]["axes"]["y"]}, keys)

    def test_kept_results_are_small_and_draw(self):
        for path in sorted((REPOSITORY / "docs" / "results").glob("*.json")):
            with self.subTest(path.name):
                self.assertLess(path.stat().st_size, 200_000)
                self.expect(DONE, "compare", "--results", path, "--out", self.dir / path.stem)
                self.assertLess((self.dir / path.stem / "report.html").stat().st_size, 2 << 20)

    def test_the_page_of_results_says_what_the_results_say(self):
        check = subprocess.run([sys.executable, REPOSITORY / "tools" / "results_page.py", "--check"])
        self.assertEqual(check.returncode, 0, "run tools/results_page.py")

    def test_an_unknown_study_of_the_script(self):
        result = subprocess.run([REPOSITORY / "scripts" / "results", "residul"], capture_output=True, text=True)
        self.assertEqual(result.returncode, USAGE)
        self.assertIn("studies/residul.json does not exist; there are: ", result.stderr)


if __name__ == "__main__":
    unittest.main()
