#!/usr/bin/env python3
"""Tokenizer speed against the `tokenizers` library, in turns: tokenizer_bench.py PROGRAM DATA [FILE...].

PROGRAM is bench_text_tokenizer, DATA the folder with tokenizers/, corpora/ and eval/; further files are encoded too. Each turn encodes a file
once, cut into pieces of 16 KiB that are in memory. The reference runs the faster of encode_batch and encode_batch_fast on one thread."""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tokenizers  # noqa: E402

PIECE, TURNS = 16 << 10, 5


def pieces(path):
    data, at, out = path.read_bytes(), 0, []
    while at < len(data):
        end = min(at + PIECE, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        out.append(data[at:end].decode())
        at = end
    return out


class Program:
    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().split()


def timed(function, *args):
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def resident_mib():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / (1 << 20)


def load(program, path):
    """In a fresh process each: milliseconds and MiB."""
    ours, theirs = [], []
    code = ("import time,tokenizers,sys\nr=lambda:int(open('/proc/self/statm').read().split()[1])*4096/(1<<20)\n"
            "b=r();s=time.perf_counter();t=tokenizers.Tokenizer.from_file(sys.argv[1]);print((time.perf_counter()-s)*1e3,r()-b)")
    for _ in range(3):
        ms, before, after = Program(program).ask(f"open {path}")
        ours.append((float(ms), float(after) - float(before)))
        out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout.split()
        theirs.append(tuple(map(float, out)))
    best = lambda rows: tuple(min(column) for column in zip(*rows))
    return best(ours), best(theirs)


def main():
    program, data = sys.argv[1], pathlib.Path(sys.argv[2])
    files = [data / "corpora/shakespeare.txt", data / "corpora/austen.txt", data / "corpora/korean_help.txt", *map(pathlib.Path, sys.argv[3:])]
    for name in ["deepseek_v3", "deepseek_llm"]:
        path = data / "tokenizers" / name / "tokenizer.json"
        (ms, mib), (their_ms, their_mib) = load(program, path)
        print(f"{name}: load {ms:.1f} ms, {mib:.1f} MiB; reference {their_ms:.1f} ms, {their_mib:.1f} MiB")
        ours, reference = Program(program), tokenizers.Tokenizer.from_file(str(path))
        ours.ask(f"open {path}")
        for file in files:
            texts = pieces(file)
            mib = sum(len(t.encode()) for t in texts) / (1 << 20)
            times = {"ours": [], "batch": [], "fast": [], "two threads": []}
            for _ in range(TURNS):
                seconds, tokens = ours.ask(f"encode {file} 1")
                times["ours"].append(float(seconds))
                seconds, encodings = timed(lambda: reference.encode_batch(texts, add_special_tokens=False))
                times["batch"].append(seconds)
                expected = sum(len(e.ids) for e in encodings)
                del encodings
                seconds, encodings = timed(lambda: reference.encode_batch_fast(texts, add_special_tokens=False))
                times["fast"].append(seconds)
                del encodings
                times["two threads"].append(float(ours.ask(f"encode {file} 2")[0]))
                if int(tokens) != expected:
                    sys.exit(f"{file}: {tokens} tokens, the reference has {expected}")
            median = {k: statistics.median(v) for k, v in times.items()}
            theirs = min(median["batch"], median["fast"])
            print(json.dumps({"tokenizer": name, "file": file.name, "MiB/s": round(mib / median["ours"], 1), "reference MiB/s": round(mib / theirs, 1),
                              "ratio": round(theirs / median["ours"], 2), "two threads": round(median["ours"] / median["two threads"], 2)}), flush=True)


if __name__ == "__main__":
    main()
