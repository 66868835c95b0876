"""What the end-to-end tests share: running the program, a small model, text to train on, checkpoints to damage."""
import json
import os
import pathlib
import select
import shutil
import struct
import subprocess
import tempfile
import unittest

PROGRAM = os.environ["BIRKHOFF_PROGRAM"]
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
TEXT = REPOSITORY / "data" / "shakespeare.txt"

DONE, FAILED, USAGE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130

# Everything that a large model has, in 20,000 weights: hyper-connections, latent attention, experts with a bias.
SMALL = {
    "residual": "mhc", "hc_mult": 2, "vocab_size": 256, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 8, "intermediate_size": 32,
    "first_k_dense_replace": 1, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "moe_intermediate_size": 8, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "bias_update_speed": 1e-3,
    "seq_len": 32, "batch_size": 2, "steps": 20, "lr": 3e-3, "warmup_steps": 2, "eval_every": 0, "gain_every": 0,
    "checkpoint_every": 5, "keep": 3,
}


def settings(**changes):
    """Command-line arguments for SMALL with changes."""
    merged = {**SMALL, **changes}
    words = {k: json.dumps(v) if isinstance(v, bool) else v for k, v in merged.items()}
    return [part for k, v in words.items() for part in ("--set", f"{k}={v}")]


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="birkhoff-e2e-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.text = self.dir / "text.txt"
        self.text.write_bytes(TEXT.read_bytes()[:20000])

    def run_program(self, *arguments, **options):
        options.setdefault("timeout", 120)
        result = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, stdin=subprocess.DEVNULL, **options)
        result.out = result.stdout.decode(errors="replace")
        result.err = result.stderr.decode(errors="replace")
        return result

    def expect(self, code, *arguments, says=(), **options):
        """Runs the program; its exit code is `code` and its messages hold every text of `says`."""
        result = self.run_program(*arguments, **options)
        told = f"{' '.join(map(str, arguments))}\nexit code {result.returncode}\n{result.out[-2000:]}\n{result.err[-3000:]}"
        self.assertEqual(result.returncode, code, told)
        for text in [says] if isinstance(says, str) else says:
            self.assertIn(text, result.err, told)
        self.assertNotIn("internal error", result.err, told)
        if code in (USAGE, REFUSED):
            self.assertRegex(result.err, r"^birkhoff: ", told)
        return result

    def train(self, out, *more, code=DONE, says=(), data=None, change=None, **options):
        return self.expect(code, "train", *settings(**(change or {})), "--data", data or self.text, "--out", out, *more, says=says, **options)

    def resume(self, out, *more, code=DONE, says=(), **options):
        return self.expect(code, "train", "--resume", "--out", out, *more, says=says, **options)


def read_terminal(master):
    """What is written to the other end of a pseudo-terminal until that is closed, or a minute without a word; closes this one."""
    said = b""
    while select.select([master], [], [], 60)[0]:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        said += part
    os.close(master)
    return said.decode()


def losses(run):
    """{step: loss} with the exact digits of the file."""
    records = [json.loads(line, parse_float=str) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = {r["step"]: r["loss"] for r in records}
    assert len(found) == len(records), "a step stands twice in metrics.jsonl"
    return found


def checkpoint_steps(run):
    return sorted(int(p.name[5:]) for p in (run / "checkpoints").glob("step-*"))


def weights(run):
    """The bytes of the newest checkpoint's weights and moments."""
    newest = run / "checkpoints" / f"step-{checkpoint_steps(run)[-1]}"
    return (newest / "model.safetensors").read_bytes(), (newest / "trainer_state" / "optimizer.safetensors").read_bytes()


def xxh64(data):
    """XXH64 with seed 0, for manifests of files that a test edits (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md)."""
    p1, p2, p3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
    p4, p5, mask = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5, (1 << 64) - 1
    rotate = lambda x, r: ((x << r) | (x >> (64 - r))) & mask
    step = lambda a, lane: rotate((a + lane * p2) & mask, 31) * p1 & mask
    n, at = len(data), 0
    if n >= 32:
        a = [(p1 + p2) & mask, p2, 0, (-p1) & mask]
        for at in range(0, n - 31, 32):
            a = [step(x, lane) for x, lane in zip(a, struct.unpack_from("<4Q", data, at))]
        at += 32
        h = (rotate(a[0], 1) + rotate(a[1], 7) + rotate(a[2], 12) + rotate(a[3], 18)) & mask
        for x in a:
            h = ((h ^ step(0, x)) * p1 + p4) & mask
    else:
        h = p5
    h = (h + n) & mask
    while at + 8 <= n:
        h = (rotate(h ^ step(0, struct.unpack_from("<Q", data, at)[0]), 27) * p1 + p4) & mask
        at += 8
    if at + 4 <= n:
        h = (rotate(h ^ (struct.unpack_from("<I", data, at)[0] * p1 & mask), 23) * p2 + p3) & mask
        at += 4
    for byte in data[at:]:
        h = rotate(h ^ (byte * p5 & mask), 11) * p1 & mask
    h = (h ^ (h >> 33)) * p2 & mask
    h = (h ^ (h >> 29)) * p3 & mask
    return f"{h ^ (h >> 32):016x}"


def reseal(checkpoint):
    """Makes the manifest of a checkpoint agree with its files after a test edited them."""
    manifest = checkpoint / "manifest.json"
    files = json.loads(manifest.read_text())
    for f in files["files"]:
        data = (checkpoint / f["file"]).read_bytes()
        f.update(bytes=len(data), xxh64=xxh64(data))
    manifest.write_text(json.dumps(files))


def set_weight(checkpoint, tensor, value):
    """Writes `value` into the first element of a tensor and makes the manifest agree."""
    path = checkpoint / "model.safetensors"
    data = bytearray(path.read_bytes())
    header_bytes = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8:8 + header_bytes])
    struct.pack_into("<f", data, 8 + header_bytes + header[tensor]["data_offsets"][0], value)
    path.write_bytes(data)
    reseal(checkpoint)
