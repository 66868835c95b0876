"""Files that a user names: kinds that are none, devices, links, inputs as outputs, files that change while they are mapped."""
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest

from support import DONE, PROGRAM, REFUSED, USAGE, Case, settings

PROMPT = "b" * 20


class Files(Case):
    @classmethod
    def setUpClass(cls):
        cls.shared = pathlib.Path(tempfile.mkdtemp(prefix="birkhoff-e2e-"))
        cls.addClassCleanup(shutil.rmtree, cls.shared, ignore_errors=True)
        (cls.shared / "text.txt").write_bytes(b"To be, or not to be. " * 500)
        cls.model = cls.shared / "run"
        subprocess.run([PROGRAM, "train", *settings(steps=1), "--data", cls.shared / "text.txt", "--out", cls.model], check=True, capture_output=True)

    def bad_paths(self):
        cycle, fifo, folder = self.dir / "cycle", self.dir / "fifo", self.dir / "folder"
        if not fifo.exists():
            cycle.symlink_to(cycle)
            os.mkfifo(fifo)
            folder.mkdir()
        return {cycle: "Too many levels of symbolic links", self.dir / ("x" * 300): "File name too long", fifo: "regular file", folder: "", "/dev/zero": "regular file"}

    def test_what_is_no_file_is_refused_at_once(self):
        for path, reason in self.bad_paths().items():
            for verb in (["eval", "-m", self.model, "--data", path], ["train", *settings(), "--data", path, "--out", self.dir / "run"],
                         ["train", *settings(), "--config", path, "--data", self.text, "--out", self.dir / "run"], ["tokenize", "--tokenizer", path],
                         ["plan", path, "--tokens", "1e6"]):
                with self.subTest(verb=verb[0], path=path):
                    if reason:
                        self.expect(REFUSED, *verb, says=["[file]", str(path)[:50], reason], timeout=20)
                    else:
                        self.assertIn(self.run_program(*verb, timeout=20).returncode, (REFUSED, USAGE))

    def test_models_with_files_of_other_kinds(self):
        for name, content, says in (("config.json", "[]", "not a JSON object"), ("config.json", None, "regular file"), ("model.safetensors", None, "regular file"),
                                    ("model.safetensors", "cycle", "Too many levels")):
            model = self.dir / "model"
            shutil.rmtree(model, ignore_errors=True)
            shutil.copytree(self.model / "latest", model)
            (model / name).unlink()
            if content is None:
                os.mkfifo(model / name)
            elif content == "cycle":
                (model / name).symlink_to(model / name)
            else:
                (model / name).write_text(content)
            for verb in (["generate", "-m", model, "-p", "a"], ["convert", "-m", model, "--out", self.dir / "out"]):
                with self.subTest(name=name, content=content, verb=verb[0]):
                    self.expect(REFUSED, *verb, says=[name, says], timeout=20)
        self.assertFalse((self.dir / "out").exists())

    def test_prompts_are_read_from_pipes_and_bounded(self):
        generate = ["generate", "-m", self.model, "-n", "3", "--temp", "0"]
        wanted = self.expect(DONE, *generate, "-p", PROMPT).stdout
        shell = " ".join(map(str, [PROGRAM, *generate])) + f" --prompt-file <(sleep 0.3; printf {PROMPT})"
        self.assertEqual(subprocess.run(["bash", "-c", shell], capture_output=True, timeout=60).stdout, wanted)
        self.expect(REFUSED, *generate, "--prompt-file", "/dev/zero", says="more than 67108864 bytes", timeout=60)
        self.expect(REFUSED, *generate, "--prompt-file", self.dir, says="is a directory")
        os.mkfifo(self.dir / "fifo")
        self.expect(REFUSED, *generate, "--prompt-file", self.dir / "fifo", says="a pipe that nothing is written to", timeout=60)
        self.expect(REFUSED, "chat-format", "--template", self.dir, says="is a directory")

    def test_a_folder_that_may_not_be_searched(self):
        if os.geteuid() != 0:
            self.skipTest("needs to become another user")
        program = pathlib.Path(PROGRAM)
        for folder in [program, *program.parents]:
            if not folder.stat().st_mode & 0o001:
                self.skipTest("the program lies where others may not go")
        closed = self.dir / "run"
        shutil.copytree(self.model, closed, symlinks=True)
        self.dir.chmod(0o755)
        closed.chmod(0o600)
        nobody = {"user": 65534, "group": 65534, "extra_groups": []}
        for verb in (["inspect", closed], ["inspect", "--verify", closed], ["generate", "-m", closed, "-p", "a"], ["plot", closed]):
            self.expect(REFUSED, *verb, says=["[file]", "Permission denied"], **nobody)
        limited = dict(nobody, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (1, 1)))
        shutil.copytree(self.model, self.dir / "open", symlinks=True)
        self.expect(REFUSED, "generate", "-m", self.dir / "open", "-p", "a", "--threads", 2, says=["[threads] 2 threads", "--threads 1"], **limited)
        self.expect(DONE, "generate", "-m", self.dir / "open", "-p", "a", "-n", 2, "--threads", 1, **limited)

    def test_outputs_are_written_where_their_names_lead(self):
        target, link = self.dir / "target.html", self.dir / "link.html"
        target.write_text("old")
        link.symlink_to("target.html")
        self.expect(DONE, "plot", self.model, "--out", link)
        self.assertTrue(link.is_symlink())
        self.assertIn("<!doctype html>", target.read_text())
        page = self.expect(DONE, "plot", self.model, "--out", "/dev/stdout").out
        self.assertEqual(page, target.read_text())
        with open(self.dir / "redirected", "wb") as out:
            subprocess.run([PROGRAM, "plot", self.model, "--out", "/dev/stdout"], stdout=out, check=True)
        self.assertEqual((self.dir / "redirected").read_text(), page)
        full = self.dir / "full"
        full.symlink_to("/dev/full")
        self.expect(REFUSED, "plot", self.model, "--out", full, says="No space left on device")
        self.expect(DONE, "plot", self.model, "--out", "/dev/null")
        self.assertTrue(pathlib.Path("/dev/full").is_char_device() and pathlib.Path("/dev/null").is_char_device())
        for path, reason in self.bad_paths().items():
            if path != "/dev/zero":
                self.expect(REFUSED, "plot", self.model, "--out", path, says=["[file]", "nobody reads" if reason == "regular file" else reason or "Is a directory"], timeout=20)
        self.assertEqual(sorted(p.name for p in self.dir.glob(".*")), [], "no temporary stays")

    def test_inputs_are_never_outputs(self):
        run = self.dir / "run"
        shutil.copytree(self.model, run, symlinks=True)
        metrics = run / "metrics.jsonl"
        before = metrics.read_bytes()
        os.link(metrics, self.dir / "same")
        for out in (metrics, self.dir / "same", run / "config.json"):
            self.expect(USAGE, "plot", run, "--out", out, says=["is read", "another file"])
        self.assertEqual(metrics.read_bytes(), before)
        ids = self.dir / "ids"
        ids.write_text("1 2 3")
        self.expect(USAGE, "logits", "-m", run, "--tokens-file", ids, "--out", ids, says="is read")
        self.assertEqual(ids.read_text(), "1 2 3")
        weights = (run / "latest" / "model.safetensors").resolve()
        for out in (weights, run / "latest" / "config.json", run / "config.json", run / "metrics.jsonl"):
            kept = out.read_bytes()
            self.expect(USAGE, "logits", "-m", run, "--tokens-file", ids, "--out", out, says=["is read", "another file"])
            self.assertEqual(out.read_bytes(), kept)
        for _ in range(2):  # what it wrote itself is no input
            self.expect(DONE, "logits", "-m", run, "--tokens-file", ids, "--out", run / "latest" / "logits.safetensors")
        other = self.dir / "other.txt"
        other.write_text("another domain")
        self.expect(USAGE, "experts", "-m", run, "--data", f"a={self.text}", "--data", f"b={other}", "--out", self.text, says="is read")
        self.assertGreater(self.text.stat().st_size, 10000)
        texts = self.dir / "texts"
        texts.mkdir()
        shutil.copy(self.text, texts / "text.txt")
        self.expect(USAGE, "experts", "-m", run, "--data", f"a={texts}", "--data", f"b={other}", "--out", texts / "text.txt", says="is read")
        self.train(texts, data=texts, code=USAGE, says=["texts: is read"])
        self.assertEqual(sorted(p.name for p in texts.iterdir()), ["text.txt"])

    def test_folders_in_folders_are_said(self):
        texts = self.dir / "texts"
        (texts / "old").mkdir(parents=True)
        shutil.copy(self.text, texts / "old")
        says = ["texts: ", "old"]
        self.train(self.dir / "run", data=texts, code=REFUSED, says=[*says, "no files, only folders"])
        shutil.copy(self.text, texts)
        self.train(self.dir / "run", data=f"{texts}@2", change={"steps": 1}, says=[*says, "its files are read, not those"])
        self.expect(DONE, "eval", "-m", self.dir / "run", "--data", texts, says=says)
        self.expect(DONE, "train-tokenizer", "--vocab", 270, "--out", self.dir / "tokenizer", texts, says=says)

    def test_data_that_is_cut_while_training(self):
        self.text.write_bytes(b"To be, or not to be. " * 100000)
        process = subprocess.Popen([PROGRAM, "train", *settings(steps=1000000, checkpoint_every=1000000), "--data", self.text, "--out", self.dir / "run"],
                                   stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        try:
            metrics = self.dir / "run" / "metrics.jsonl"
            deadline = time.monotonic() + 60
            while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
                time.sleep(0.05)
            os.truncate(self.text, 0)
            said = process.communicate(timeout=60)[1].decode()
        finally:
            process.kill()
        self.assertEqual(process.returncode, REFUSED, said)
        self.assertIn(f"[file] {self.text}: became shorter while it was read", said)

    def test_data_that_is_written_to_is_said(self):
        process = subprocess.Popen([PROGRAM, "train", *settings(steps=1000000), "--data", self.text, "--out", self.dir / "run"], stderr=subprocess.PIPE,
                                   stdin=subprocess.DEVNULL)
        try:
            metrics = self.dir / "run" / "metrics.jsonl"
            deadline = time.monotonic() + 60
            while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
                time.sleep(0.05)
            with open(self.text, "ab") as more:
                more.write(b"more")
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=60)[1].decode()
        finally:
            process.kill()
        self.assertIn(f"warning: {self.text} was written to while it was read", said)

    def start_writing(self, model):
        """A generation that goes on until it is stopped, past its first bytes."""
        process = subprocess.Popen([PROGRAM, "generate", "-m", model, "-p", "a", "-n", "4000", "--samples", "1000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   stdin=subprocess.DEVNULL)
        self.addCleanup(process.kill)
        self.assertEqual(len(process.stdout.read(10)), 10)
        return process

    def test_weights_that_change_while_they_run(self):
        model = self.dir / "model"
        shutil.copytree(self.model / "latest", model)
        weights = model / "model.safetensors"
        process = self.start_writing(model)
        start = weights.read_bytes()[:8]
        with open(weights, "r+b") as file:
            file.write(start)  # the same again
        process.send_signal(signal.SIGINT)
        self.assertIn(f"warning: {weights} was written to while it was read", process.communicate(timeout=60)[1].decode())
        self.assertEqual(process.returncode, DONE)
        process = self.start_writing(model)
        os.truncate(weights, 0)
        said = process.communicate(timeout=60)[1].decode()
        self.assertEqual(process.returncode, REFUSED, said)
        self.assertIn(f"[file] {weights}: became shorter while it was read", said)

    def test_a_byte_order_mark_is_read_past(self):
        mark = b"\xef\xbb\xbf"
        lines = self.dir / "lines.jsonl"
        lines.write_bytes(mark + b"".join(json.dumps({"text": "To be, or not to be. " * 20}).encode() + b"\n" for _ in range(20)))
        self.train(self.dir / "run", data=lines, change={"steps": 1})
        out = subprocess.run([PROGRAM, "chat-format", "--encoder", "v4"], input=mark + b'{"messages": [{"role": "user", "content": "a"}]}\n', capture_output=True)
        self.assertIn(b'"text"', out.stdout)
        tokenizer = self.dir / "tokenizer"
        self.expect(DONE, "train-tokenizer", "--vocab", 270, "--eos", "</s>", "--out", tokenizer, self.text)
        plain = subprocess.run([PROGRAM, "tokenize", "--tokenizer", tokenizer], input=b"to be", capture_output=True, check=True).stdout
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (tokenizer / name).write_bytes(mark + (tokenizer / name).read_bytes())
        marked = subprocess.run([PROGRAM, "tokenize", "--tokenizer", tokenizer], input=b"to be", capture_output=True)
        self.assertEqual(marked.stdout, plain, marked.stderr)

    def test_without_a_place_for_the_token_cache(self):
        tokenizer = self.dir / "tokenizer"
        self.expect(DONE, "train-tokenizer", "--vocab", 256 + 4, "--eos", "</s>", "--out", tokenizer, self.text)
        blocked = self.dir / "blocked"
        blocked.write_text("a file, where a folder was to be")
        done = self.train(self.dir / "run", "--tokenizer", tokenizer, "--token-cache", blocked / "tokens", change={"steps": 1, "vocab_size": 300})
        self.assertEqual(done.err.count("tokenized data is not kept"), 1, done.err)
        self.assertIn(str(blocked), done.err)


if __name__ == "__main__":
    unittest.main()
