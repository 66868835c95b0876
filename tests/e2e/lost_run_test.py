"""What may happen to a long training: a closed terminal, a log that nobody reads, data that changes, a directory that goes away."""
import json
import os
import pty
import shutil
import signal
import subprocess
import time
import unittest

from support import DONE, FAILED, INTERRUPTED, PROGRAM, REFUSED, USAGE, Case, checkpoint_steps, losses, read_terminal, settings


class LostRun(Case):
    def start(self, run, **changes):
        process = subprocess.Popen([PROGRAM, "train", *settings(steps=100000, checkpoint_every=0, **changes), "--data", self.text, "--out", run,
                                    "--threads", "1"], stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        return process

    def wait_for_a_step(self, process):
        said = ""
        while not said.startswith("step "):
            said = process.stderr.readline()
            self.assertIsNone(process.poll(), said)

    def test_a_closed_terminal_saves_as_a_termination_does(self):
        run = self.dir / "run"
        process = self.start(run)
        self.wait_for_a_step(process)
        process.send_signal(signal.SIGHUP)
        told = process.stderr.read()
        self.assertEqual(process.wait(60), INTERRUPTED, told)
        self.assertIn("interrupting: the step is finished and the run saved; again to stop at once", told)
        self.assertEqual(checkpoint_steps(run), [max(losses(run))])

    def test_a_log_that_ends_does_not_stop_training(self):
        run = self.dir / "run"
        process = self.start(run)
        self.wait_for_a_step(process)
        process.stderr.close()
        before = len(losses(run))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (len(losses(run)) < before + 50 or time.monotonic() < deadline - 53):
            self.assertIsNone(process.poll(), "training stopped with its log")  # lines come every five seconds
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(60), INTERRUPTED)
        self.assertEqual(checkpoint_steps(run), [max(losses(run))])

    def test_checkpoints_by_time(self):
        run = self.dir / "run"
        process = self.start(run, checkpoint_minutes=0.02, keep=2)
        self.wait_for_a_step(process)
        deadline = time.monotonic() + 60
        while not checkpoint_steps(run) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.kill()
        process.wait()
        self.assertTrue(checkpoint_steps(run), "no checkpoint in time")
        saved = checkpoint_steps(run)[-1]
        self.resume(run, "--set", f"steps={saved + 2}", says=f"at step {saved}")

    def test_the_directory_of_the_run_removed(self):
        run = self.dir / "run"
        process = self.start(run)
        self.wait_for_a_step(process)
        shutil.rmtree(run)
        told = process.stderr.read()
        self.assertEqual(process.wait(60), REFUSED, told)
        self.assertIn("was removed while it trained", told)
        self.assertNotIn("internal error", told)

    def test_data_that_changed_is_not_taken_up_silently(self):
        run = self.dir / "run"
        self.train(run, change={"steps": 4, "checkpoint_every": 0})
        files = json.loads((run / "run.json").read_text())["data_files"]
        self.assertEqual([(f["file"], f["bytes"]) for f in files], [(str(self.text), self.text.stat().st_size)])
        text = self.text.read_bytes()
        self.text.write_bytes(text[:-1] + b"#")
        self.resume(run, "--set", "steps=6", code=REFUSED, says=["changed since the run was started", files[0]["xxh64"], "give --data again"])
        self.resume(run, "--set", "steps=6", "--data", self.text)
        self.assertEqual(sorted(losses(run)), list(range(1, 7)))
        self.assertNotEqual(json.loads((run / "run.json").read_text())["data_files"], files)

    def test_a_folder_of_data_that_changed(self):
        texts, run = self.dir / "texts", self.dir / "run"
        texts.mkdir()
        shutil.copy(self.text, texts / "a.txt")
        self.train(run, data=texts, change={"steps": 2})
        (texts / "b.txt").write_text("more")
        self.resume(run, "--set", "steps=4", code=REFUSED, says=["b.txt: was not there when the run was started", "give --data again"])
        (texts / "b.txt").rename(texts / "a.txt.old")
        (texts / "a.txt").rename(texts / "c.txt")
        self.resume(run, "--set", "steps=4", code=REFUSED, says=["a.txt: was read when the run was started, is gone"])
        self.resume(run, "--set", "steps=4", "--data", texts)


class WhereARunGoes(Case):
    def test_nothing_of_the_user_is_overwritten(self):
        for name in ("run.json", "metrics.jsonl", "report.html", "latest", "checkpoints"):
            out = self.dir / f"with-{name}"
            out.mkdir()
            (out / "mine.txt").write_text("mine")
            if name == "checkpoints":
                (out / name / "step-3").mkdir(parents=True)
                (out / name / "step-3" / "precious").write_text("precious")
            else:
                (out / name).write_text("precious")
            before = sorted((p.relative_to(out), p.read_bytes() if p.is_file() else None) for p in out.rglob("*"))
            self.train(out, change={"steps": 3}, code=REFUSED, says=["already holds", name])
            self.assertEqual(sorted((p.relative_to(out), p.read_bytes() if p.is_file() else None) for p in out.rglob("*") if p.name != ".lock"), before)
        other = self.dir / "other"
        other.mkdir()
        (other / "notes.txt").write_text("mine")
        self.train(other, change={"steps": 3})
        self.assertEqual((other / "notes.txt").read_text(), "mine")

    def test_a_checkpoint_is_no_run(self):
        run = self.dir / "run"
        self.train(run, change={"steps": 5})
        self.resume(run / "checkpoints" / "step-5", code=REFUSED, says=["is a checkpoint, not a run"])

    def test_no_steps(self):
        run = self.dir / "run"
        self.train(run, change={"steps": 0}, says="done: 0 steps")
        self.assertEqual(checkpoint_steps(run), [0])
        self.assertFalse((run / "report.html").exists())
        self.resume(run, "--set", "steps=2")
        self.assertTrue((run / "report.html").exists())


class Hints(Case):
    def test_the_setting_that_left_the_finite_numbers_is_named(self):
        for name, change in (("z_loss", {"z_loss": 1e4, "lr": 1e6, "weight_decay": 0}), ("weight_decay", {"weight_decay": 1e4, "steps": 60}),
                             ("lr", {"lr": 1e6, "weight_decay": 0})):
            self.train(self.dir / name, change={"steps": 20, **change}, code=FAILED, says=["not finite", f"lower {name}"])

    def test_more_threads_than_any_machine_has(self):
        for threads in ("100000", "1000000"):
            said = self.expect(USAGE, "train", *settings(), "--data", self.text, "--out", self.dir / "run", "--threads", threads,
                               says=["--threads", "from 1 to 1024", f'is "{threads}"']).err
            self.assertNotIn("model", said)  # no model is the cause
        self.assertFalse((self.dir / "run").exists())

    def test_expressions_of_trainable_are_bounded(self):
        for pattern, says in (("(" * 50000 + "a" + ")" * 50000, ["trainable", "100001 bytes"]),
                              ("(([a-z._0-9])*)*!", ["trainable", "matches no tensor"]),
                              ("^([a-z._0-9]*)*[^a-z._0-9]", ["trainable", "retry-limit"]),
                              ("([", ["trainable", "is no regular expression"]),
                              ("self_atn", ["trainable", "matches no tensor", "self_attn"])):
            began = time.monotonic()
            self.train(self.dir / "run", change={"trainable": pattern}, code=REFUSED, says=says)
            self.assertLess(time.monotonic() - began, 30)


class Terminal(Case):
    def shown(self, columns, *arguments, **environment):
        """What a training, or another verb, writes to a terminal of so many columns."""
        import fcntl
        import struct
        import termios
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        arguments = arguments or ["train", *settings(steps=300), "--data", self.text, "--out", self.dir / f"run-{columns}{len(environment)}"]
        process = subprocess.Popen([PROGRAM, *map(str, arguments)],
                                   stderr=slave, stdout=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm", **environment})
        os.close(slave)
        said = read_terminal(master)
        self.assertEqual(process.wait(60), DONE)
        return said

    def test_the_bar_fits_the_terminal(self):
        for columns in (30, 10, 120):
            lines = [part.split("\r")[0].split("\n")[0] for part in self.shown(columns).split("\r\x1b[K")[1:]]
            bars = [line for line in lines if "/300" in line or line.startswith("[")]
            self.assertTrue(bars)
            self.assertLess(max(map(len, bars)), columns)

    def test_a_dumb_terminal_gets_lines(self):
        said = self.shown(80, TERM="dumb")
        self.assertNotIn("\x1b", said)
        self.assertRegex(said, r"step 300/300  loss")
        experts = ["experts", "-m", self.dir / "run-801", "--data", self.text, "--disable-top", "1"]
        self.assertIn("\x1b", self.shown(80, *experts))
        self.assertNotIn("\x1b", self.shown(80, *experts, TERM="dumb"))
        compare = ["compare", *settings(steps=1500), "--vary", "weight_decay=0.1,0.2", "--seeds", 1, "--data", self.text]
        self.assertIn("\x1b", self.shown(30, *compare, "--out", self.dir / "bar"))
        self.assertNotIn("\x1b", self.shown(30, *compare, "--out", self.dir / "lines", TERM="dumb"))


if __name__ == "__main__":
    unittest.main()
