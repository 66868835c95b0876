"""Whole optimizer steps through the program, against the independent trainer of tests/golden/steps, or every run of BIRKHOFF_ORACLE: what train
writes as metrics, checkpoints and kept steps. The same figures through TrainState are in tests/train/step_test.cc."""
import array
import json
import os
import pathlib
import struct
import unittest

from support import Case, REPOSITORY, checkpoint_steps, reseal

FULL = pathlib.Path(os.environ.get("BIRKHOFF_ORACLE") or "/nowhere") / "steps"
RUNS = FULL if FULL.is_dir() else REPOSITORY / "tests" / "golden" / "steps"


def tensors(path):
    """name -> (type, raw bytes) of a safetensors file."""
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    return {name: (t["dtype"], data[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]])
            for name, t in json.loads(data[8:8 + n]).items() if name != "__metadata__"}


def floats(tensor):
    kind, raw = tensor
    assert kind == "F32", kind
    return array.array("f", raw)


def saved(run, step):
    """All weights of a checkpoint, adapters under the names that the specification has."""
    point = run / "checkpoints" / f"step-{step}"
    found = tensors(point / "model.safetensors")
    adapter = point / "adapter" / "adapter_model.safetensors"
    if adapter.exists():
        found.update({k.removeprefix("base_model.model."): v for k, v in tensors(adapter).items()})
    return found


def put_adapter(run, case):
    """The adapters of step 0 become the specification's: a program draws its own."""
    path = run / "checkpoints" / "step-0" / "adapter" / "adapter_model.safetensors"
    given = tensors(case / "adapter_init.safetensors")
    data = bytearray(path.read_bytes())
    n = struct.unpack("<Q", data[:8])[0]
    for name, t in json.loads(data[8:8 + n]).items():
        if name != "__metadata__":
            data[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]] = given.pop(name.removeprefix("base_model.model."))[1]
    assert not given, sorted(given)
    path.write_bytes(data)
    reseal(run / "checkpoints" / "step-0")


class Steps(Case):
    def near(self, got, want, limit, what):
        self.assertIsNotNone(got, what)
        self.assertLessEqual(abs(got - want), limit, f"{what}: {got}, expected {want}")

    def train_case(self, case, run, *more):
        steps = json.loads((case / "train.json").read_text())
        start = ["train", "--init", case, "--config", case / "train.json", "--data", case / "corpus.bin", "--val", case / "val.bin", "--out", run,
                 "--threads", "1", "--quiet"]
        sets = [x for s in more for x in ("--set", s)]
        if not steps.get("lora.rank"):
            self.expect(0, *start, *sets)
            return
        self.expect(0, *start, *sets, "--set", "steps=0")
        put_adapter(run, case)
        self.expect(0, "train", "--resume", "--out", run, "--set", f"steps={steps['steps']}", "--quiet", "--threads", "1")

    def check_record(self, got, want, tolerance, at):
        self.near(got["lr"], want["lr"], 1e-9 * want["lr"] + 1e-15, f"{at} lr")
        for field in ("loss", "z_loss", "aux_loss", "mtp_loss", "indexer_loss", "val_loss"):
            if want.get(field) is not None:
                self.near(got.get(field), want[field], tolerance[field] + 1e-6 * abs(want[field]), f"{at} {field}")
        self.near(got["grad_norm"], want["grad_norm"], tolerance["grad_norm"] + 4e-6 * want["grad_norm"], f"{at} grad_norm")
        if "expert_load" in want:
            self.assertEqual(got["expert_load"], want["expert_load"], at)

    def check_weights(self, now, start, moved, tolerance, at):
        for name, before in start.items():
            if name in moved:
                worst = max(abs(a - b) for a, b in zip(floats(now[name]), floats(moved[name]), strict=True))
                self.assertLessEqual(worst, tolerance[name], f"{at} {name}")
            else:
                self.assertEqual(now[name][1], before[1], f"{at} {name} must not move")

    def check_case(self, case):
        want, run = json.loads((case / "steps.json").read_text()), self.dir / case.name
        tolerance, count = want["tolerance"], len(want["steps"])
        self.train_case(case, run, "checkpoint_every=1", "keep=1000", "gain_every=1")
        got = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        self.assertEqual([r["step"] for r in got], list(range(1, count + 1)))
        start = tensors(case / "model.safetensors")
        if (case / "adapter_init.safetensors").exists():
            start.update(tensors(case / "adapter_init.safetensors"))
        for g, r in zip(got, want["steps"]):
            self.check_record(g, r, tolerance["records"], f"step {r['step']}")
            biases = [name for name in start if name.endswith(("e_score_correction_bias", "gate.bias"))]
            biases.sort(key=lambda name: int(name.split("layers.")[1].split(".")[0]))
            if biases and "router_bias" in r:
                now = saved(run, r["step"])
                for name, bias in zip(biases, r["router_bias"], strict=True):
                    for a, b in zip(floats(now[name]), bias, strict=True):
                        self.near(a, b, 1e-6, f"step {r['step']} {name}")
        for step, which, file in ((1, "first", "after_1"), (count, "final", "final")):
            self.check_weights(saved(run, step), start, tensors(case / f"{file}.safetensors"), tolerance[which], f"step {step}")
        values = [(r["val_loss"], r["step"]) for r in want["steps"] if r.get("val_loss") is not None]
        if values:
            best = min(values)[1]
            self.train_case(case, self.dir / "best", "checkpoint_every=0", "keep=1")
            self.assertEqual(checkpoint_steps(self.dir / "best"), sorted({best, count}), "the best and the last stay")
            self.train_case(case, self.dir / "last", "checkpoint_every=1", "keep=1", "keep_best=false")
            self.assertEqual(checkpoint_steps(self.dir / "last"), [count], "keep_best=false")


def add_cases():
    cases = sorted(p.parent for p in RUNS.glob("*/steps.json"))
    assert cases, f"{RUNS} holds no runs"
    for case in cases:
        setattr(Steps, f"test_{case.name}", lambda self, case=case: self.check_case(case))


add_cases()

if __name__ == "__main__":
    unittest.main()
