// tokenizer.json: the file is mutated; what opens encodes and decodes a fixed text.
#include "fuzz/mutate.h"
#include "text/tokenizer/json_tokenizer.h"

namespace {

const char kLlama[] =
    R"json({"version": "1.0", "added_tokens": [{"id": 0, "content": "<unk>", "special": true, "normalized": false}, {"id": 8, "content": "[M] ", "lstrip": true, "rstrip": true,
"single_word": true, "normalized": true}], "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, {"type": "NFKC"}]},
"pre_tokenizer": null, "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<unk>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {"<unk>": {"ids": [0]}}},
"decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
"model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": {"<unk>": 0, "<0xC3>": 1, "▁": 2, "a": 3, "b": 4, "▁a": 5, "ab": 6, "▁ab": 299}, "merges": ["▁ a", "a b", "▁a b"]}})json";

const char kByteLevel[] =
    R"json({"added_tokens": [{"id": 7, "content": "<｜end｜>", "special": true}], "normalizer": {"type": "Sequence", "normalizers": []}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
{"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "Isolated", "invert": false}, {"type": "Split", "pattern": {"Regex": "[一-龥぀-ゟ]+|(?<=a)b*?(?!c)"}, "behavior": "MergedWithNext", "invert": true},
{"type": "Digits", "individual_digits": true}, {"type": "Punctuation", "behavior": "Contiguous"}, {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}]},
"decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}, "post_processor": {"type": "ByteLevel"},
"model": {"type": "BPE", "ignore_merges": true, "vocab": {"a": 0, "b": 1, "Ġ": 2, "Ġa": 3, "ab": 4, "Ãł": 5, "Ġab": 6}, "merges": [["Ġ", "a"], ["a", "b"], ["Ġa", "b"]]}})json";

const char kSpaces[] =
    R"json({"normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Whitespace"},
{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true}]}, "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"},
"model": {"vocab": {"a": 0, "@@b": 1, "@@c</w>": 2, "▁": 3, "ab": 4}, "merges": ["a @@b"], "continuing_subword_prefix": "@@", "end_of_word_suffix": "</w>"}})json";

}  // namespace

int main(int argc, char** argv) {
  using namespace birkhoff;
  fuzz::Target t;
  t.name = "tokenizer_json";
  t.seeds = {kLlama, kByteLevel, kSpaces};
  t.dictionary = {"\"type\":\"Split\"",
                  "\"Regex\":",
                  "\"String\":",
                  "(a+)+$",
                  "{1,99999}",
                  "(?=",
                  "[^",
                  "\\\\p{L}",
                  "\\u0000",
                  "\\ud800",
                  "null",
                  "true",
                  "{}",
                  "[]",
                  "\"\"",
                  "\"Sequence\"",
                  "\"NFD\"",
                  "\"StripAccents\"",
                  "\"Strip\"",
                  "\"ByteLevel\"",
                  "\"Removed\"",
                  "\"MergedWithPrevious\"",
                  "\"id\":",
                  "\"content\":",
                  "4194303",
                  "\"ids\":[0]"};
  const std::string text = "ab 1234 ab,\n\t [M] À日本 b<｜end｜>  aaab ?";
  t.run = [&](const std::string& input) {
    const auto tokenizer = text::parse_tokenizer_json(input, {});
    std::vector<int32_t> ids = tokenizer->encode_with_special(text);
    tokenizer->encode(text, ids, text::Tokenizer::Added::plain);
    ids.insert(ids.end(), {0, 5, 7, -1, 1 << 30});
    tokenizer->decode(ids);
    text::StreamDecoder stream(tokenizer, true);
    for (const int32_t id : ids) stream.push(id);
    stream.finish();
  };
  return fuzz::run(argc, argv, t);
}
