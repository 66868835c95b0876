#!/usr/bin/env python3
"""Text that makes tokenizers quadratic, at 0.1, 1 and 10 MB: hostile_bench.py PROGRAM TOKENIZER...

PROGRAM is bench_text_tokenizer, TOKENIZER a tokenizer.json. For every kind of text the milliseconds of each size; the ids are compared with those of the
`tokenizers` library at the largest size that it manages within PATIENCE seconds. Exit code 1 when ids differ."""
import multiprocessing
import os
import pathlib
import sys
import tempfile

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tokenizers  # noqa: E402

from tokenizer_bench import Program  # noqa: E402

SIZES, SMALL, PATIENCE = (100_000, 1_000_000, 10_000_000), (100_000, 10_000, 1_000), 2
FORK = multiprocessing.get_context("fork")  # the tokenizer is handed over as it is
KINDS = {  # repeated part, end
    "one letter": ("a", ""), "spaces before a letter": (" ", "x"), "ideographic spaces": ("\u3000", "x"), "line feeds": ("\n", "x"), "spaces and CR": (" \r", "x"),
    "combining marks": ("\u0301", ""), "marks of two orders": ("\u0301\u0323", "a"), "emoji sequences": ("\U0001F469\u200D", ""), "NUL": ("\0", "a"),
    "pieces of special tokens": ("<｜place▁holder▁no", "x"), "starts of special tokens": ("<｜", "x"), "digits": ("7", "a"), "apostrophes": ("'", "s"),
    "Hangul": ("가", ""), "punctuation": ("!", "\n"),
}
INVALID = {"lone byte": b"\xff", "cut character": b"\xe4\xb8", "surrogate": b"\xed\xa0\x80"}


def text_of(kind, size):
    part, end = KINDS[kind]
    return part * (size // len(part.encode())) + end


def encode(tokenizer, text, answer):
    answer.put(tokenizer.encode(text, add_special_tokens=False).ids)


def reference(tokenizer, text):
    """In a process of its own, which can be stopped."""
    answer = FORK.Queue()
    process = FORK.Process(target=encode, args=(tokenizer, text, answer))
    process.start()
    try:
        return answer.get(timeout=PATIENCE)
    except Exception:  # too slow: it is stopped
        return None
    finally:
        process.kill()
        process.join()


def ours(program, folder, content):
    (folder / "text").write_bytes(content)
    answer = program.ask(f"whole {folder / 'text'} {folder / 'ids'}")
    if answer[0] == "error":
        return None, " ".join(answer[1:])
    return float(answer[0]), list(memoryview((folder / "ids").read_bytes()).cast("i"))


def compared(program, folder, tokenizer, kind):
    for size in (SIZES[1], *SMALL):
        expected = reference(tokenizer, text_of(kind, size))
        if expected is not None:
            same = ours(program, folder, text_of(kind, size).encode())[1] == expected
            return same, f"ids {'equal' if same else 'DIFFER'} at {size // 1000} kB" + ("" if size == SIZES[1] else ", the reference does not end beyond")
    return True, "the reference does not end at any size"


def main():
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for path in sys.argv[2:]:
            program = Program(sys.argv[1])
            program.ask(f"open {path}")
            tokenizer = tokenizers.Tokenizer.from_file(path)
            for kind in KINDS:
                ms = [min(ours(program, folder, text_of(kind, size).encode())[0] for _ in range(3 if size < SIZES[2] else 1)) * 1e3 for size in SIZES]
                same, note = compared(program, folder, tokenizer, kind)
                wrong += not same
                print(f"{pathlib.Path(path).parent.name}, {kind}: {' '.join(f'{x:.1f}' for x in ms)} ms; {note}", flush=True)
            for kind, content in INVALID.items():
                seconds, message = ours(program, folder, b"a" * SIZES[2] + content)
                wrong += seconds is not None
                print(f"{pathlib.Path(path).parent.name}, {kind} behind 10 MB: {message}", flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
