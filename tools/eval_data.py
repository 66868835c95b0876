#!/usr/bin/env python3
"""Evaluation sets in the forms that `birkhoff eval --data-dir DIR` reads (docs/eval.md).

tools/eval_data.py DIR [SET ...]       brings sets from their public homes with the package `datasets` (pip install datasets)
tools/eval_data.py --check DIR         says of every file whether it is there, has all rows, and holds what it should
tools/eval_data.py DIR prompts --prompts REPOSITORY   the few-shot prompts of DeepSeek-Math, from a clone of
                                       github.com/deepseek-ai/DeepSeek-Math

Files that are there stay as they are. Exit code 1 when something is missing or has the wrong number of rows; other content than the copy
that the project's own figures were made of is said, and no error: sets are mended at their homes."""
import argparse
import ast
import hashlib
import json
import os
import pathlib
import sys

STEM = """abstract_algebra astronomy college_biology college_chemistry college_computer_science college_mathematics college_physics
computer_security conceptual_physics electrical_engineering elementary_mathematics high_school_biology high_school_chemistry
high_school_computer_science high_school_mathematics high_school_physics high_school_statistics machine_learning""".split()
BBH = {"boolean_expressions": 250, "causal_judgement": 187, "date_understanding": 250, "disambiguation_qa": 250, "dyck_languages": 250,
       "formal_fallacies": 250, "geometric_shapes": 250, "hyperbaton": 250, "logical_deduction_five_objects": 250,
       "logical_deduction_seven_objects": 250, "logical_deduction_three_objects": 250, "movie_recommendation": 250,
       "multistep_arithmetic_two": 250, "navigate": 250, "object_counting": 250, "penguins_in_a_table": 146,
       "reasoning_about_colored_objects": 250, "ruin_names": 250, "salient_translation_error_detection": 250, "snarks": 178,
       "sports_understanding": 250, "temporal_sequences": 250, "tracking_shuffled_objects_five_objects": 250,
       "tracking_shuffled_objects_seven_objects": 250, "tracking_shuffled_objects_three_objects": 250, "web_of_lies": 250, "word_sorting": 250}
MATH = "algebra counting_and_probability geometry intermediate_algebra number_theory prealgebra precalculus".split()
PROMPTS = {"deepseek_math_cot_gsm_8_shot.txt": "cot_gsm_8_shot.py", "deepseek_math_cot_minerva_math_4_shot.txt": "cot_minerva_math_4_shot.py",
           "deepseek_math_cot_mmlu_stem_4_shot.txt": "cot_mmlu_stem_4_shot.py"}


def pick(row, *names):
    return {name: row[name] for name in names}


# Every set: what its files hold, from rows of the Hub. load(path, name, split) gives them in order.

def mmlu(load):
    for file, split in (("test", "test"), ("dev", "dev")):
        rows = load("cais/mmlu", "all", split)
        yield f"mmlu/{file}.jsonl", [{**pick(r, "subject", "question", "choices"), "answer": "ABCD"[r["answer"]]} for r in rows]


def mmlu_stem(load):
    rows = [r for r in load("cais/mmlu", "all", "test") if r["subject"] in STEM]
    yield "mmlu_stem/test.jsonl", [{"question": r["question"], "options": r["choices"], "answer": "ABCD"[r["answer"]], "topic": r["subject"],
                                    "id": i} for i, r in enumerate(rows)]


def hellaswag(load):
    def rows(split):
        return [{**pick(r, "activity_label", "ctx_a", "ctx_b", "endings"), "label": int(r["label"])} for r in
                load("Rowan/hellaswag", None, split)]
    validation = rows("validation")
    half = len(validation) // 2
    yield "hellaswag/validation-0.jsonl", validation[:half]
    yield "hellaswag/validation-1.jsonl", validation[half:]
    yield "hellaswag/train.jsonl", rows("train")


def piqa(load):
    for file, split in (("valid", "validation"), ("train", "train")):
        rows = list(load("baber/piqa", None, split))
        yield f"piqa/{file}.jsonl", [pick(r, "goal", "sol1", "sol2") for r in rows]
        yield f"piqa/{file}-labels.lst", [int(r["label"]) for r in rows]


def arc(load):
    for folder, name in (("arc_easy", "ARC-Easy"), ("arc_challenge", "ARC-Challenge")):
        for split in ("test", "train"):
            yield f"{folder}/{split}.jsonl", [pick(r, "id", "question", "choices", "answerKey") for r in load("allenai/ai2_arc", name, split)]


def bbh(load):
    for name in BBH:
        yield f"bbh/tasks/{name}.json", {"examples": [pick(r, "input", "target") for r in load("SaylorTwift/bbh", name, "test")]}


def drop_answers(row):
    """The answer and the validated ones, each a list of spans, every one once."""
    more = row["validated_answers"]
    records = [row["answer"]] + [{k: more[k][i] for k in ("number", "date", "spans")} for i in range(len(more["number"]))]
    answers = []
    for r in records:
        date = r["date"]
        spans = [r["number"]] if r["number"] != "" else list(r["spans"]) or [" ".join([date["day"], date["month"], date["year"]]).strip()]
        if spans not in answers:
            answers.append(spans)
    return answers


def drop(load):
    for file, split in (("dev", "validation"), ("train", "train")):
        ids, questions = {}, []
        for r in load("EleutherAI/drop", None, split):
            number = ids.setdefault(r["passage"], len(ids))
            questions.append({"passage": number, "question": r["question"], "answers": drop_answers(r)})
        yield f"drop/{file}_passages.jsonl", [{"passage": i, "text": text} for text, i in ids.items()]
        yield f"drop/{file}_questions.jsonl", questions


def gsm8k(load):
    for split in ("test", "train"):
        yield f"gsm8k/{split}.jsonl", [pick(r, "question", "answer") for r in load("openai/gsm8k", "main", split)]


def math(load):
    for split in ("test", "train"):
        yield f"math/{split}.json", [pick(r, "problem", "level", "type", "solution") for name in MATH
                                     for r in load("EleutherAI/hendrycks_math", name, split)]


def nq_open(load):
    for file, split in (("dev", "validation"), ("train", "train")):
        yield f"nq_open/NQ-open.{file}.jsonl", [pick(r, "question", "answer") for r in load("google-research-datasets/nq_open", None, split)]


def triviaqa(load):
    for split in ("validation", "train"):
        yield f"triviaqa/{split}.jsonl", [{"question": r["question"], "answer": {"aliases": r["answer"]["aliases"]}} for r in
                                          load("mandarjoshi/trivia_qa", "rc.nocontext", split)]


def humaneval(load):
    yield "humaneval/HumanEval.jsonl", [pick(r, "task_id", "prompt", "entry_point", "canonical_solution", "test") for r in
                                        load("openai/openai_humaneval", None, "test")]


def mbpp(load):
    rows = [r for split in ("prompt", "test", "validation", "train") for r in load("google-research-datasets/mbpp", "full", split)]
    names = ("text", "code", "task_id", "test_setup_code", "test_list", "challenge_test_list")
    yield "mbpp/mbpp.jsonl", [pick(r, *names) for r in sorted(rows, key=lambda r: r["task_id"])]


SETS = {f.__name__: f for f in (mmlu, mmlu_stem, hellaswag, piqa, arc, bbh, drop, gsm8k, math, nq_open, triviaqa, humaneval, mbpp)}

# File: rows (None: any number) and the fields whose content is compared (None: all of it).
FILES = {
    "mmlu/test.jsonl": (14042, ("subject", "question", "choices", "answer")),
    "mmlu/dev.jsonl": (285, ("subject", "question", "choices", "answer")),
    "mmlu_stem/test.jsonl": (3018, ("question", "options", "answer")),
    "hellaswag/validation-0.jsonl": (5021, ("endings", "label")),
    "hellaswag/validation-1.jsonl": (5021, ("endings", "label")),
    "hellaswag/train.jsonl": (39905, ("endings", "label")),
    "piqa/valid.jsonl": (1838, ("goal", "sol1", "sol2")),
    "piqa/valid-labels.lst": (1838, None),
    "piqa/train.jsonl": (16113, ("goal", "sol1", "sol2")),
    "piqa/train-labels.lst": (16113, None),
    "arc_easy/test.jsonl": (2376, ("question", "choices", "answerKey")),
    "arc_easy/train.jsonl": (2251, ("question", "choices", "answerKey")),
    "arc_challenge/test.jsonl": (1172, ("question", "choices", "answerKey")),
    "arc_challenge/train.jsonl": (1119, ("question", "choices", "answerKey")),
    **{f"bbh/tasks/{name}.json": (rows, ("input", "target")) for name, rows in BBH.items()},
    "drop/dev_passages.jsonl": (None, ("text",)),
    "drop/dev_questions.jsonl": (9536, ("question",)),
    "drop/train_passages.jsonl": (None, ("text",)),
    "drop/train_questions.jsonl": (None, ("question",)),
    "gsm8k/test.jsonl": (1319, ("question", "answer")),
    "gsm8k/train.jsonl": (7473, ("question", "answer")),
    "math/test.json": (5000, ("problem", "level", "type", "solution")),
    "math/train.json": (7500, ("problem", "level", "type", "solution")),
    "nq_open/NQ-open.dev.jsonl": (3610, ("question", "answer")),
    "nq_open/NQ-open.train.jsonl": (87925, ("question", "answer")),
    "triviaqa/validation.jsonl": (17944, ("question", "answer")),
    "triviaqa/train.jsonl": (138384, ("question", "answer")),
    "humaneval/HumanEval.jsonl": (164, ("prompt", "entry_point", "canonical_solution", "test")),
    "mbpp/mbpp.jsonl": (974, ("text", "code", "task_id", "test_list")),
    **{f"prompts/{name}": (None, None) for name in PROMPTS},
}
# Without these the last rows of the evaluation file serve as few-shot examples.
REPLACED = {"hellaswag/train.jsonl", "piqa/train.jsonl", "piqa/train-labels.lst", "drop/train_passages.jsonl", "drop/train_questions.jsonl",
            "math/train.json", "nq_open/NQ-open.train.jsonl", "triviaqa/train.jsonl"}
# First 16 digits of the digest of the copies that the project's figures were made of, where there is one. Digests are of the set of rows,
# whatever their order, since homes order them differently; of labels in their order.
DIGESTS = {
    "mmlu/test.jsonl": "30edfa4c52bb5d92",
    "mmlu/dev.jsonl": "73231e6a58cf1859",
    "mmlu_stem/test.jsonl": "d662baf7a05e3c69",
    "hellaswag/validation-0.jsonl": "ba0148c659d84e5c",
    "hellaswag/validation-1.jsonl": "da1e1cdf6e889e5b",
    "piqa/valid.jsonl": "cde5418b4baac14e",
    "piqa/valid-labels.lst": "7345c55fb298b7d8",
    "bbh/tasks/boolean_expressions.json": "c34a44ba1424b5a5",
    "bbh/tasks/causal_judgement.json": "5ec42c1c29396a39",
    "bbh/tasks/date_understanding.json": "54e54574fb65dcc5",
    "bbh/tasks/disambiguation_qa.json": "5b839487ad8bf66b",
    "bbh/tasks/dyck_languages.json": "c7f917c2ddfa03d8",
    "bbh/tasks/formal_fallacies.json": "432f2e6ec23d3785",
    "bbh/tasks/geometric_shapes.json": "723e1bad9691a62c",
    "bbh/tasks/hyperbaton.json": "977db7b8bbbe9dd5",
    "bbh/tasks/logical_deduction_five_objects.json": "7b1b5fde1dade5e9",
    "bbh/tasks/logical_deduction_seven_objects.json": "040b8f12dc7b5cdb",
    "bbh/tasks/logical_deduction_three_objects.json": "9f7cfc3de9379b2f",
    "bbh/tasks/movie_recommendation.json": "aa8ca8f7c14e6022",
    "bbh/tasks/multistep_arithmetic_two.json": "0811783861ce843c",
    "bbh/tasks/navigate.json": "6ed2edd184cf4e1e",
    "bbh/tasks/object_counting.json": "ae0e605022f620ba",
    "bbh/tasks/penguins_in_a_table.json": "1ad19a466978e825",
    "bbh/tasks/reasoning_about_colored_objects.json": "04c543b6ea033b25",
    "bbh/tasks/ruin_names.json": "4bc2d3c4dff97685",
    "bbh/tasks/salient_translation_error_detection.json": "be55d262be80e078",
    "bbh/tasks/snarks.json": "c11a54ac254a19ba",
    "bbh/tasks/sports_understanding.json": "254028737f9f11a0",
    "bbh/tasks/temporal_sequences.json": "bf5469e66fe5d702",
    "bbh/tasks/tracking_shuffled_objects_five_objects.json": "e1cc43d25df84c7d",
    "bbh/tasks/tracking_shuffled_objects_seven_objects.json": "7430f75d24332aed",
    "bbh/tasks/tracking_shuffled_objects_three_objects.json": "b5e3b6737f7da48d",
    "bbh/tasks/web_of_lies.json": "760991c76cab0c1e",
    "bbh/tasks/word_sorting.json": "b293cc64d444ec17",
    "drop/dev_passages.jsonl": "405354a63a6dca87",
    "drop/dev_questions.jsonl": "89bf53324271e4d9",
    "gsm8k/test.jsonl": "393cc2e8d3db4f66",
    "gsm8k/train.jsonl": "521f2e2bb88a4a92",
    "math/test.json": "628d660a3b1cfaef",
    "nq_open/NQ-open.dev.jsonl": "0461e393f5f7678d",
    "humaneval/HumanEval.jsonl": "f73bd413831a3bb1",
    "mbpp/mbpp.jsonl": "5e72178887a06ea7",
    "prompts/deepseek_math_cot_gsm_8_shot.txt": "3c4cf8d55bf78f6f",
    "prompts/deepseek_math_cot_minerva_math_4_shot.txt": "929c1acec67bb4bd",
    "prompts/deepseek_math_cot_mmlu_stem_4_shot.txt": "b99392e6bd54378e",
}


def set_of(file):
    return "arc" if file.startswith("arc_") else file.split("/")[0]


def rows_of(path, file):
    text = path.read_text(encoding="utf-8")
    if file.startswith("prompts/"):
        return [text.strip()]
    if file.startswith("bbh/"):
        return json.loads(text)["examples"]
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def digest(rows, fields):
    lines = [json.dumps([r[f] for f in fields] if fields else r, ensure_ascii=False, sort_keys=True) for r in rows]
    lines = sorted(lines) if fields else lines
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def state(directory, file):
    """"ok", "absent", or what is wrong; whether that is an error."""
    count, fields = FILES[file]
    path = directory / file
    if not path.is_file():
        return ("absent: the last rows of the evaluation file stand in for it", False) if file in REPLACED else ("missing", True)
    try:
        rows = rows_of(path, file)
        found = digest(rows, fields)
    except (ValueError, KeyError, TypeError) as e:
        return f"cannot be read: {type(e).__name__}: {e}", True
    if count is not None and len(rows) != count:
        return f"{len(rows)} rows, {count} were expected", True
    said = "" if file.startswith("prompts/") else f"{len(rows)} rows"
    if file not in DIGESTS:
        return f"ok {said}".rstrip(), False
    return (f"ok {said}".rstrip() if found == DIGESTS[file] else f"{said}, other content than the copy our figures are of".lstrip(", ")), False


def check(directory, sets):
    failed = False
    for file in FILES:
        if set_of(file) in sets:
            said, error = state(directory, file)
            failed |= error
            print(f"{file:62} {said}")
    return 1 if failed else 0


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with open(part, "w", encoding="utf-8") as f:
        if isinstance(content, list):
            f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        else:
            f.write(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))
    os.replace(part, path)


def files_of(name):
    return [file for file in FILES if set_of(file) == name]


def bring(directory, name, load):
    if all((directory / file).is_file() for file in files_of(name)):
        return
    for file, content in SETS[name](load):
        if not (directory / file).is_file():
            write(directory / file, content)


def bring_prompts(directory, repository):
    for file, source in PROMPTS.items():
        tree = ast.parse((repository / "evaluation" / "few_shot_prompts" / source).read_text(encoding="utf-8"))
        texts = [node.value.value for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)]
        write(directory / "prompts" / file, texts[0])


def from_hub(path, name, split):
    from datasets import load_dataset

    return load_dataset(path, name, split=split)


def main(arguments=None, load=from_hub):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("sets", nargs="*", help=f"default: all of {', '.join(SETS)}")
    parser.add_argument("--check", action="store_true", help="bring nothing")
    parser.add_argument("--prompts", type=pathlib.Path, help="clone of DeepSeek-Math")
    options = parser.parse_args(arguments)
    for name in options.sets:
        if name not in SETS and name != "prompts":
            parser.error(f"unknown set {name}: one of {', '.join(SETS)}, prompts")
    sets = options.sets or [*SETS, "prompts"]
    if not options.check:
        for name in sets:
            if name in SETS:
                print(f"{name} ...", file=sys.stderr)
                bring(options.directory, name, load)
        if options.prompts:
            bring_prompts(options.directory, options.prompts)
    return check(options.directory, sets)


if __name__ == "__main__":
    sys.exit(main())
