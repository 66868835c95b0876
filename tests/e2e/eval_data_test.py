"""tools/eval_data.py: rows of the Hub become the files of --data-dir; what is missing, short or changed is said."""
import contextlib
import importlib.util
import io
import json
import os
import pathlib
import shutil
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SPEC = importlib.util.spec_from_file_location("eval_data", ROOT / "tools" / "eval_data.py")
eval_data = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(eval_data)


def hub(path, name, split):
    """Rows as the Hub has them, of our own writing."""
    assert split in ("test", "dev", "validation", "train", "prompt")
    date = {"day": "", "month": "", "year": ""}
    return {
        "cais/mmlu": [{"question": "1 + 1?", "subject": "astronomy", "choices": ["1", "2", "3", "4"], "answer": 1},
                      {"question": "Bone?", "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": 3}],
        "Rowan/hellaswag": [{"ind": i, "activity_label": "A", "ctx_a": f"a{i}.", "ctx_b": "she", "ctx": "x", "endings": ["e"] * 4, "label": "2"}
                            for i in range(4)],
        "baber/piqa": [{"goal": "g", "sol1": "a", "sol2": "b", "label": 1}],
        "allenai/ai2_arc": [{"id": name, "question": "q", "choices": {"text": ["t"], "label": ["A"]}, "answerKey": "A"}],
        "SaylorTwift/bbh": [{"input": name, "target": "t"}],
        "EleutherAI/drop": [
            {"section_id": "s", "query_id": "q", "passage": "p", "question": "how many?",
             "answer": {"number": "3", "date": date, "spans": [], "worker_id": "", "hit_id": ""},
             "validated_answers": {"number": ["3", ""], "date": [date, date], "spans": [[], ["x", "y"]], "worker_id": ["", ""], "hit_id": ["", ""]}},
            {"section_id": "s", "query_id": "r", "passage": "p", "question": "when?",
             "answer": {"number": "", "date": {"day": "", "month": "May", "year": "1900"}, "spans": [], "worker_id": "", "hit_id": ""},
             "validated_answers": {"number": [], "date": [], "spans": [], "worker_id": [], "hit_id": []}}],
        "openai/gsm8k": [{"question": "\u00fc?", "answer": "#### 1"}],
        "EleutherAI/hendrycks_math": [{"problem": name, "level": "Level 1", "type": "T", "solution": "s"}],
        "google-research-datasets/nq_open": [{"question": "q", "answer": ["a"]}],
        "mandarjoshi/trivia_qa": [{"question": "q", "question_id": "i", "answer": {"aliases": ["a", "b"], "value": "a"}}],
        "openai/openai_humaneval": [{"task_id": "t", "prompt": "p", "canonical_solution": "s", "test": "t", "entry_point": "e"}],
        "google-research-datasets/mbpp": [{"task_id": {"prompt": 1, "test": 11, "validation": 511, "train": 601}.get(split), "text": "t", "code": "c",
                                           "test_list": ["l"], "test_setup_code": "", "challenge_test_list": []}],
    }[path]


class EvalData(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.dir)

    def run_tool(self, *arguments, load=hub):
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            code = eval_data.main([str(a) for a in arguments], load)
        return code, out.getvalue()

    def lines(self, file):
        return [json.loads(line) for line in (self.dir / file).read_text().splitlines()]

    def test_rows_of_the_hub_become_the_forms_of_tasks(self):
        code, said = self.run_tool(self.dir)
        self.assertEqual(code, 1)  # a few rows are no set
        self.assertIn("2 rows, 14042 were expected", said)
        self.assertEqual(self.lines("mmlu/test.jsonl")[0], {"subject": "astronomy", "question": "1 + 1?", "choices": ["1", "2", "3", "4"], "answer": "B"})
        self.assertEqual([r["topic"] for r in self.lines("mmlu_stem/test.jsonl")], ["astronomy"])
        self.assertEqual([len(self.lines(f"hellaswag/{n}.jsonl")) for n in ("validation-0", "validation-1", "train")], [2, 2, 4])
        self.assertEqual(self.lines("hellaswag/validation-1.jsonl")[0]["ctx_a"], "a2.")
        self.assertEqual((self.dir / "piqa/valid-labels.lst").read_text(), "1\n")
        self.assertEqual([r["answers"] for r in self.lines("drop/dev_questions.jsonl")], [[["3"], ["x", "y"]], [["May 1900"]]])
        self.assertEqual(self.lines("drop/dev_passages.jsonl"), [{"passage": 0, "text": "p"}])
        self.assertEqual([r["task_id"] for r in self.lines("mbpp/mbpp.jsonl")], [1, 11, 511, 601])
        self.assertEqual(len(self.lines("math/train.json")), 7)
        self.assertEqual(json.loads((self.dir / "bbh/tasks/navigate.json").read_text()), {"examples": [{"input": "navigate", "target": "t"}]})
        self.assertFalse(list(self.dir.rglob("*.part")))

    def test_files_that_are_there_stay(self):
        (self.dir / "gsm8k").mkdir()
        (self.dir / "gsm8k/test.jsonl").write_text("{}\n")
        self.run_tool(self.dir, "gsm8k")
        self.assertEqual((self.dir / "gsm8k/test.jsonl").read_text(), "{}\n")
        self.assertEqual(self.lines("gsm8k/train.jsonl"), [{"question": "\u00fc?", "answer": "#### 1"}])
        code, said = self.run_tool("--check", self.dir, "gsm8k")
        self.assertEqual(code, 1)
        self.assertIn("cannot be read: KeyError", said)

    def test_prompts_come_from_a_clone(self):
        source = self.dir / "clone/evaluation/few_shot_prompts"
        source.mkdir(parents=True)
        for name in eval_data.PROMPTS.values():
            (source / name).write_text('import x\nfew_shot_prompt = """Q: \\\\a\nA: b"""\n')
        code, said = self.run_tool(self.dir, "prompts", "--prompts", self.dir / "clone")
        self.assertEqual(code, 0)
        self.assertEqual((self.dir / "prompts/deepseek_math_cot_gsm_8_shot.txt").read_text(), "Q: \\a\nA: b")
        self.assertIn("other content", said)

    def test_the_local_copies_are_whole(self):
        data = os.environ.get("BIRKHOFF_DATA")
        if not data:
            self.skipTest("BIRKHOFF_DATA names no data")
        sets = [name for name in eval_data.SETS if name not in ("arc", "triviaqa")] + ["prompts"]
        code, said = self.run_tool("--check", f"{data}/eval", *sets)
        self.assertEqual(code, 0, said)
        self.assertNotIn("other content", said)
        shutil.copytree(f"{data}/eval/gsm8k", self.dir / "gsm8k")
        for file, change, expected in (("test.jsonl", lambda s: s.replace("Janet", "Janice", 1), "other content"),
                                       ("train.jsonl", lambda s: s.split("\n", 1)[1], "7472 rows, 7473 were expected")):
            path = self.dir / "gsm8k" / file
            os.chmod(path, 0o644)
            path.write_text(change(path.read_text()))
            self.assertIn(expected, self.run_tool("--check", self.dir, "gsm8k")[1])


if __name__ == "__main__":
    unittest.main()
