"""A run that is stopped, by any signal at any moment, and goes on: every loss and the final weights equal the uninterrupted run's.

python3 tests/e2e/interrupt_test.py --kills 50 for the long form (BIRKHOFF_PROGRAM names the program)."""
import fcntl
import json
import os
import pty
import random
import re
import signal
import struct
import subprocess
import sys
import termios
import time
import unittest

from support import DONE, INTERRUPTED, PROGRAM, REFUSED, USAGE, Case, checkpoint_steps, losses, read_terminal, settings, weights

KILLS = 8


class Interrupt(Case):
    def start(self, run, *more, resume=False, **changes):
        first = ["--resume"] if resume else [*settings(**changes), "--data", self.text]
        return subprocess.Popen([PROGRAM, "train", *first, "--out", run, "--threads", "1", *more], stderr=subprocess.PIPE, text=True)

    def test_signals_finish_the_step_save_and_say_how_to_go_on(self):
        whole, run = self.dir / "whole", self.dir / "run"
        self.train(whole, "--threads", "1", change={"steps": 3000, "checkpoint_every": 0})
        first = self.start(run, steps=3000, checkpoint_every=0)
        for number in (signal.SIGINT, signal.SIGTERM):
            while not first.stderr.readline().startswith("step "):
                self.assertIsNone(first.poll(), "it ended before it was stopped")
            first.send_signal(number)
            told = first.stderr.read()
            self.assertEqual(first.wait(60), INTERRUPTED, told)
            stopped_at = int(re.search(r"interrupted at step (\d+), saved\. Go on with: birkhoff train --resume --out " + re.escape(str(run)), told).group(1))
            self.assertEqual(checkpoint_steps(run)[-1], stopped_at)
            self.assertEqual(sorted(losses(run)), list(range(1, stopped_at + 1)))
            self.assertEqual(json.loads((run / "run.json").read_text())["status"], "interrupted")
            first.stderr.close()
            first = self.start(run, resume=True)
        self.assertEqual(first.wait(60), DONE, first.stderr.read())
        self.assertEqual(losses(run), losses(whole))
        self.assertEqual(weights(run), weights(whole))
        first.stderr.close()

    def test_killed_at_random_moments(self):
        """SIGKILL in start-up, steps, metrics, checkpoints, pruning: the moments are spread over what the whole run takes."""
        whole, run = self.dir / "whole", self.dir / "run"
        # A kill loses at most the four steps since the last checkpoint, so lives of a quarter of the whole make progress in the mean.
        change = {"steps": 600, "checkpoint_every": 4, "gain_every": 10, "eval_every": 25, "bias_update_speed": 1e-2}
        began = time.monotonic()
        self.train(whole, "--threads", "1", change=change)
        life = (time.monotonic() - began) / 4
        rng, kills = random.Random(4), 0
        while kills < KILLS:
            process = self.start(run, "--quiet", resume=(run / "config.json").exists(), **change)
            try:
                process.wait(rng.uniform(0, life))
                self.assertEqual(process.returncode, DONE, process.stderr.read())
                self.assertEqual(losses(run), losses(whole))  # it came through: once more from the start
                self.assertEqual(weights(run), weights(whole))
                run = self.dir / f"run-{kills}"
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
            process.stderr.close()
        if (run / "config.json").exists():
            self.resume(run, "--threads", "1")
        else:
            self.train(run, "--threads", "1", change=change)
        self.assertEqual(losses(run), losses(whole))
        self.assertEqual(weights(run), weights(whole))
        self.assertEqual([p.name for p in (run / "checkpoints").iterdir() if p.name.startswith(".")], [], "leftovers of killed processes")


class Resume(Case):
    def setUp(self):
        super().setUp()
        self.run_dir = self.dir / "run"
        self.train(self.run_dir, change={"steps": 10})

    def test_more_steps_recompute_the_schedule_and_say_so(self):
        self.resume(self.run_dir, "--set", "steps=15", says=["changed setting steps: 10 -> 15 (schedule recomputed)", "at step 10"])
        self.assertEqual(sorted(losses(self.run_dir)), list(range(1, 16)))

    def test_other_training_settings_are_logged(self):
        self.resume(self.run_dir, "--set", "steps=15", "--set", "lr=1e-4", says="changed setting lr: 0.003 -> 0.0001")

    def test_model_settings_may_not_differ(self):
        for setting, says in [("hidden_size=32", ["hidden_size", "16", "32"]), ("residual=plain", ["residual", "mhc", "plain"]), ("hc_mult=4", ["hc_mult", "2", "4"]), ("hc_convention=paper", "hc_convention")]:
            self.resume(self.run_dir, "--set", "steps=15", "--set", setting, code=REFUSED, says=says)
        self.assertEqual(checkpoint_steps(self.run_dir), [5, 10])

    def test_no_finished_checkpoint_starts_at_step_0_and_says_so(self):
        run = self.dir / "young"
        with subprocess.Popen([PROGRAM, "train", *settings(steps=100000, checkpoint_every=0), "--data", self.text, "--out", run], stderr=subprocess.PIPE) as first:
            first.stderr.readline()
            first.kill()
        self.resume(run, "--set", "steps=3", "--set", "checkpoint_every=5", says="no finished checkpoint: starting at step 0")
        self.assertEqual(sorted(losses(run)), [1, 2, 3])

    def test_where_there_is_no_run(self):
        self.resume(self.dir / "nothing", code=REFUSED, says=["nothing", "holds no run to resume"])
        self.expect(USAGE, "train", *settings(), "--data", self.text, says="--out")

    def test_an_unfinished_line_of_metrics_is_dropped(self):
        before = losses(self.run_dir)
        with open(self.run_dir / "metrics.jsonl", "a") as f:
            f.write('{"step": 11, "los')
        self.resume(self.run_dir, "--set", "steps=12")
        self.assertEqual({s: l for s, l in losses(self.run_dir).items() if s <= 10}, before)
        self.assertEqual(sorted(losses(self.run_dir)), list(range(1, 13)))


class Progress(Case):
    def test_lines_without_a_terminal_and_a_bar_on_one(self):
        change = {"steps": 400, "eval_every": 200}
        plain = self.train(self.dir / "a", change=change)
        self.assertRegex(plain.err, r"(?m)^step 400/400  loss \d\.\d{4}  val \d\.\d{4}  \d+ tokens/s  0:00 left$")
        self.assertNotIn("\r", plain.err)
        self.assertEqual(plain.out, "")
        quiet = self.train(self.dir / "b", "--quiet", change=change)
        self.assertNotIn("step ", quiet.err)

        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))  # columns for the whole bar
        process = subprocess.Popen([PROGRAM, "train", *settings(**change), "--data", self.text, "--out", self.dir / "c"], stderr=slave, stdout=subprocess.DEVNULL)
        os.close(slave)
        shown = read_terminal(master)
        self.assertEqual(process.wait(60), DONE)
        self.assertRegex(shown, r"\r\x1b\[K\[#{24}\] 400/400  loss \d\.\d{4}  val \d\.\d{4}  \d+ tok/s  0:00 left")
        self.assertNotIn("\nstep ", shown)
        self.assertIn("report: ", shown)


if __name__ == "__main__":
    if "--kills" in sys.argv:
        at = sys.argv.index("--kills")
        KILLS = int(sys.argv[at + 1])
        del sys.argv[at:at + 2]
    unittest.main()
