#!/usr/bin/env python3
"""Writes tests/golden/tokenizers from the full data: make_tokenizer_goldens.py DATA. Needs PyPI tokenizers 0.23.3, sentencepiece 0.2.3,
transformers 5.24.0 and protobuf.

Reduced tokenizers keep the real pre-tokenizer, decoder, alphabet and first merges of a released one; every expected id comes from the
reference libraries run on the reduced file."""
import io
import json
import pathlib
import random
import shutil
import sys
import tempfile

import sentencepiece
import tokenizers

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/tokenizers"
TEXT = OUT.parents[2] / "data/shakespeare.txt"
MERGES, PER_CATEGORY = 900, 3


def ascii_line(value):
    return json.dumps(value, separators=(",", ":")) + "\n"


def reduced(path, keep_added):
    full = json.loads(path.read_text())
    model = full["model"]
    merges = model["merges"][:MERGES]
    by_id = sorted(model["vocab"], key=model["vocab"].get)
    kept = {token for merge in merges for token in (*merge.split(" "), merge.replace(" ", ""))}
    kept |= {t for t in by_id if len(t) == 1}
    specials = {t["content"] for t in full["added_tokens"]}
    tokens = [t for t in by_id if t in kept or t in specials]
    model["vocab"] = {t: i for i, t in enumerate(tokens)}
    model["merges"] = merges
    added = [t for t in full["added_tokens"] if keep_added(t)]
    following = len(tokens)
    for t in added:
        if t["content"] in model["vocab"]:
            t["id"] = model["vocab"][t["content"]]
        else:
            t["id"] = following
            following += 1
    full["added_tokens"] = added
    return full


def strings(data):
    """A few of every category of the golden strings, the short ones first choice."""
    rows = [json.loads(line) for line in (data / "tokenizers/golden_v3.jsonl").open()]
    chosen, seen = [], {}
    random.Random(7).shuffle(rows)
    for row in rows:
        if seen.get(row["cat"], 0) < PER_CATEGORY and len(row["text"]) <= 160:
            seen[row["cat"]] = seen.get(row["cat"], 0) + 1
            chosen.append(row["text"])
    return chosen


def write_reduced(data, name, folder, texts, keep_added):
    full = reduced(data / "tokenizers" / folder / "tokenizer.json", keep_added)
    target = OUT / name
    target.mkdir(parents=True, exist_ok=True)
    (target / "tokenizer.json").write_text(json.dumps(full, separators=(",", ":")))
    for licence in (data / "tokenizers" / folder).glob("LICENSE*"):
        shutil.copyfile(licence, target / licence.name)
    config = data / "tokenizers" / folder / "tokenizer_config.json"
    if config.exists():
        shutil.copyfile(config, target / config.name)
    reference = tokenizers.Tokenizer.from_file(str(target / "tokenizer.json"))
    with (target / "golden.jsonl").open("w") as f:
        for text in texts + [t["content"] + " x" for t in full["added_tokens"][-6:]]:
            ids = reference.encode(text, add_special_tokens=False).ids
            f.write(ascii_line({"text": text, "ids": ids, "decoded": reference.decode(ids, skip_special_tokens=False)}))


def write_sentencepiece(texts):
    """A SentencePiece model of Llama's kind (BPE, byte fallback, spaces kept), trained on the text of this repository."""
    target = OUT / "sentencepiece"
    target.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()  # lines, not a file: a model keeps the path of its input
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.read_text().split("\n")), model_writer=model, model_type="bpe", vocab_size=512, byte_fallback=True, split_digits=True,
        character_coverage=1.0, normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
        max_sentence_length=1 << 16, input_sentence_size=20000, shuffle_input_sentence=False, num_threads=1, minloglevel=2)
    (target / "tokenizer.model").write_bytes(model.getvalue())
    reference = sentencepiece.SentencePieceProcessor(model_file=str(target / "tokenizer.model"))
    with (target / "golden.jsonl").open("w") as f:
        for text in texts:
            ids = reference.encode(text)
            f.write(ascii_line({"text": text, "ids": ids, "decoded": reference.decode(ids)}))


def write_llama(texts):
    """The same model by Llama's tokenizer class with "legacy": false."""
    import transformers  # 5.24.0; needs protobuf

    source = OUT / "sentencepiece"
    specials = ["<unk>", "<s>", "</s>"]
    texts = texts + ["Hey", " Hey", "  Hey", "<s>Hey</s> you</s>there", "a<s> b", "\u2581x", "<s>\u2581x", "\nHey", "", " ", "</s>", "</s> ", "a </s> <s>  b"]
    for name, options in {"first": {}, "never": {"add_prefix_space": False}}.items():
        with tempfile.TemporaryDirectory() as folder:
            shutil.copyfile(source / "tokenizer.model", f"{folder}/tokenizer.model")
            flags = {"special": True, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
            config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True, "add_eos_token": False,
                      "legacy": False, **options, "added_tokens_decoder": {str(i): {"content": c, **flags} for i, c in enumerate(specials)}}
            (source / f"legacy_false_{name}.json").write_text(json.dumps(config, indent=1) + "\n")
            shutil.copyfile(source / f"legacy_false_{name}.json", f"{folder}/tokenizer_config.json")
            reference = transformers.AutoTokenizer.from_pretrained(folder)
        with (source / f"legacy_false_{name}.jsonl").open("w") as f:
            for text in texts:
                ids = reference.encode(text, add_special_tokens=False)
                assert reference.encode(text) == [1] + ids
                f.write(ascii_line({"text": text, "ids": ids, "decoded": reference.decode(ids, clean_up_tokenization_spaces=False)}))


# Small hand-made tokenizers, one a line with its cases: what the released ones do not use.
WORDS = "Hello  world, it's 2024!\nI'll go to Zürich №12 — naïve ﬁ x²\t\u3000a\u0301b  "
TEXTS = [WORDS, "", " ", "   ", "a", "  a  b ", "...!?", "aaab aab ab", "日本語 テスト 123 45", "no<tag>gap < tag > <TAG>", "x [M] y[M]z [M]", "\u0130stanbul ÀÉÎ ǅ", "\u1e9b\u0323 \ufb01 Å"]


def bpe(vocab_words=(), merges=(), **options):
    alphabet = sorted(set("".join(TEXTS)) | set("▁ĠĊabcdefghijklmnopqrstuvwxyz"))
    vocab = {}
    for token in [*options.pop("first", []), *alphabet, *(a + b for a, b in merges), *vocab_words]:
        vocab.setdefault(token, len(vocab))
    return {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": [" ".join(m) for m in merges], **options}


def tokenizer(model, pre=None, normalizer=None, decoder=None, post=None, added=()):
    tokens = []
    following = len(model["vocab"])
    for content, flags in added:
        known = model["vocab"].get(content)
        tokens.append({"id": following if known is None else known, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
                       "normalized": False, "special": False, **flags})
        following += known is None
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens, "normalizer": normalizer, "pre_tokenizer": pre,
            "post_processor": post, "decoder": decoder, "model": model}


def variants():
    split = lambda pattern, behavior="Isolated", invert=False: {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}
    plain = bpe(merges=[("a", "b"), ("a", "ab"), ("l", "l"), ("e", "ll")])
    for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
        for invert in [False, True]:
            yield tokenizer(plain, split({"Regex": r"\s|l"}, behavior, invert))
        yield tokenizer(plain, split({"String": "a"}, behavior))
        yield tokenizer(plain, {"type": "Punctuation", "behavior": behavior})
    for pre in [{"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "Digits", "individual_digits": True}, {"type": "Digits", "individual_digits": False},
                {"type": "CharDelimiterSplit", "delimiter": "l"}, split({"Regex": r"(?i:HELLO)|(?<=o) |x*"}), split({"Regex": r"\d+|\p{Lu}|[^\s\w]+|(?!a)."})]:
        yield tokenizer(plain, pre)
    for scheme in ["always", "first", "never"]:
        for cut in [True, False]:
            meta = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cut}
            yield tokenizer(plain, meta, decoder=meta, added=[("[M]", {})])
            yield tokenizer(plain, {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, meta]}, decoder=meta)
    symbols = [chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 324)]]
    for prefix in [False, True]:
        for regex in [False, True]:
            level = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}
            words = bpe(first=symbols, merges=[("Ġ", "a"), ("l", "l"), ("e", "ll"), ("Ã", "¼")])
            yield tokenizer(words, level, decoder=level, added=[("[M]", {"lstrip": True}), ("<tag>", {"special": True})])
            yield tokenizer({**words, "ignore_merges": True, "vocab": {**words["vocab"], "Ġworld": 2000}}, level, decoder=level)
    yield tokenizer(bpe(first=symbols), {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}, split({"String": "Ġ"})]})
    for kind in ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"]:
        yield tokenizer(bpe(unk_token="?", vocab_words=["?"]), normalizer={"type": kind}, added=[("<tag>", {"normalized": True}), ("<TAG>", {})])
    yield tokenizer(plain, normalizer={"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]})
    for left in [False, True]:
        yield tokenizer(plain, normalizer={"type": "Strip", "strip_left": left, "strip_right": not left})
    yield tokenizer(plain, normalizer={"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": "_a_"})
    yield tokenizer(plain, normalizer={"type": "ByteLevel"},
                    decoder={"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True})
    llama = [f"<0x{b:02X}>" for b in range(256)]
    small = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
             "byte_fallback": True, "merges": ["▁ a", "l l", "e ll"],
             "vocab": {t: i for i, t in enumerate(["<unk>", "<s>", "</s>", *llama, "▁", "a", "l", "e", "H", "o", "▁a", "ll", "ell", "b", "日"])}}
    decoder = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                                                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    normal = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    post = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    special = [("<unk>", {"special": True}), ("<s>", {"special": True}), ("</s>", {"special": True, "normalized": True})]
    yield tokenizer(small, normalizer=normal, decoder=decoder, post=post, added=special)
    for fuse in [False, True]:
        for fallback in [False, True]:
            part = {**small, "fuse_unk": fuse, "byte_fallback": fallback, "vocab": {t: i for t, i in small["vocab"].items() if t != "<0x64>"}}
            yield tokenizer(part, normalizer=normal, decoder=decoder)
    glued = bpe(first=["@@" + c for c in "abcdelo"] + ["@@b</w>", "@@o</w>"], merges=[("a", "@@a")][:0])
    glued["vocab"].update({"aa": 3000, "aab</w>": 3001})
    glued.update(continuing_subword_prefix="@@", end_of_word_suffix="</w>", merges=["a @@a", "aa @@b</w>"], unk_token="?")
    yield tokenizer(glued, {"type": "WhitespaceSplit"})
    flags = [("ab", {"single_word": True}), ("[M]", {"lstrip": True, "rstrip": True}), ("l", {"rstrip": True}), ("go", {"normalized": True, "single_word": True})]
    for i in range(len(flags)):
        yield tokenizer(plain, added=flags[: i + 1], decoder={"type": "Fuse"})
    yield tokenizer(plain, added=[("a", {}), ("aa", {}), ("aaab", {"special": True}), (" ", {"lstrip": True})], decoder={"type": "BPEDecoder", "suffix": "b"})


QWEN_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DISTILLED_TEXTS = ["I'LLama, they'Re it'S", "x=12345;y=678 ½²", "if (a) {\r\n\t return 'all';\n}\n\n  ", "<think>\nall's  well</think>\n\n ok", "a\u0301 e\u0301\u0323 \u212b"]


def distilled():
    """What the distilled models' tokenizers are made of (Qwen: every digit by itself, NFC; Llama 3: up to three), over a small vocabulary."""
    symbols = [chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 324)]]
    merges = [("1", "2"), ("12", "3"), ("4", "5"), ("'", "l"), ("l", "l"), ("'", "ll"), ("'l", "l"), ("L", "L"), ("LL", "a"), ("a", "ll"), ("Ġ", "a"), ("Ã", "¡"), ("Ċ", "Ċ"), (";", "y")]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    for pattern, normalizer, ignore in [(QWEN_PATTERN, {"type": "NFC"}, False), (QWEN_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|"), None, True)]:
        model = bpe(first=symbols, merges=merges, vocab_words=["Ġwell"], **({"ignore_merges": True} if ignore else {}))
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        added = [("<｜begin▁of▁sentence｜>", {"special": True}), ("<think>", {}), ("</think>", {})]
        begin = len(model["vocab"])
        post = {"type": "Sequence", "processors": [{**level, "trim_offsets": True}, {
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": added[0][0], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {added[0][0]: {"id": added[0][0], "ids": [begin], "tokens": [added[0][0]]}}}]}
        yield tokenizer(model, {"type": "Sequence", "pretokenizers": [split, level]}, normalizer, {**level, "use_regex": True}, post if ignore else level, added)


def write_components():
    with (OUT / "components.jsonl").open("w") as f:
        for spec, texts in [*((spec, TEXTS) for spec in variants()), *((spec, TEXTS + DISTILLED_TEXTS) for spec in distilled())]:
            reference = tokenizers.Tokenizer.from_str(json.dumps(spec))
            cases = []
            for text in texts:
                ids = reference.encode(text, add_special_tokens=False).ids
                cases.append({"text": text, "ids": ids, "with_special": reference.encode(text).ids, "decoded": reference.decode(ids, skip_special_tokens=False),
                              "decoded_plain": reference.decode(ids, skip_special_tokens=True)})
            f.write(ascii_line({"tokenizer": spec, "cases": cases}))


def train(texts, pre_tokenizer, vocab, specials):
    """The merges that the reference's trainer learns, and its tokenizer."""
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
             "byte_fallback": False, "vocab": {}, "merges": []}
    reference = tokenizers.Tokenizer.from_str(json.dumps(tokenizer(model, pre_tokenizer)))
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocab, special_tokens=specials, show_progress=False,
                                             initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    reference.train_from_iterator(texts, trainer)
    merges = json.loads(reference.to_str())["model"]["merges"]
    return ["".join(m) if isinstance(m, str) else " ".join(m) for m in merges], reference


def write_trainer(data):
    """Merges learned from the first 60,000 bytes of a text of this repository."""
    text = TEXT.read_bytes()[:60000].decode()
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    out = []
    for name, folder in [("v3", "deepseek_v3"), ("llm", "deepseek_llm"), ("coder", "deepseek_coder"), ("gpt2", None)]:
        pre = json.loads((data / "tokenizers" / folder / "tokenizer.json").read_text())["pre_tokenizer"] if folder else level
        out.append({"pattern": name, "vocab": 700, "special": ["<a>", "</s>"], "merges": train([text], pre, 700, ["<a>", "</s>"])[0]})
    (OUT / "trainer.json").write_text(json.dumps(out, separators=(",", ":")))


def main():
    data = pathlib.Path(sys.argv[1])
    texts = strings(data)
    few = lambda t: "place▁holder" not in t["content"] or t["content"].endswith(("no▁0｜>", "no▁7｜>"))
    write_reduced(data, "v3", "deepseek_v3", texts, few)
    write_reduced(data, "v4", "deepseek_v4", texts[::4], lambda t: few(t) and t["id"] % 5 == 0)
    write_reduced(data, "llm", "deepseek_llm", texts, few)
    write_reduced(data, "coder", "deepseek_coder", texts, few)
    write_sentencepiece(texts)
    write_llama(texts)
    write_components()
    write_trainer(data)


if __name__ == "__main__":
    main()
