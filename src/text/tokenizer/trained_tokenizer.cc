// The pre-tokenizers of the released families, and the files of a trained tokenizer.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "io/atomic_file.h"
#include "io/json_file.h"
#include "text/tokenizer/bpe_trainer.h"
#include "text/tokenizer/byte_level_json.h"

namespace birkhoff::text {
namespace {

constexpr char kV3[] =
    R"json({"type": "Sequence", "pretokenizers": [
{"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "Isolated", "invert": false},
{"type": "Split", "pattern": {"Regex": "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"}, "behavior": "Isolated", "invert": false},
{"type": "Split", "pattern": {"Regex": "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[)json"
    R"json(\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false},
{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}
]})json";

constexpr char kLlm[] =
    R"json({"type": "Sequence", "pretokenizers": [
{"type": "Split", "pattern": {"Regex": "[\r\n]"}, "behavior": "Isolated", "invert": false},
{"type": "Split", "pattern": {"Regex": "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af)json"
    R"json(\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556)json"
    R"json(\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-)json"
    R"json(\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3)json"
    R"json(\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134)json"
    R"json(\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f)json"
    R"json(\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\ud801\udc00-\ud801\udc4f\ud801\udcb0-\ud801)json"
    R"json(\udcd3\ud801\udcd8-\ud801\udcfb\ud803\udc80-\ud803\udcb2\ud803\udcc0-\ud803\udcf2\ud806\udca0-\ud806\udcdf\ud83a\udd00-\ud83a)json"
    R"json(\udd43]+"}, "behavior": "Isolated", "invert": false},
{"type": "Split", "pattern": {"Regex": "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"}, "behavior": "Isolated", "invert": false},
{"type": "Split", "pattern": {"Regex": "\\s+$"}, "behavior": "Isolated", "invert": false},
{"type": "Split", "pattern": {"Regex": "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"}, "behavior": "Isolated", "invert": false},
{"type": "Digits", "individual_digits": true},
{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}
]})json";

constexpr char kCoder[] = R"json({"type": "Sequence", "pretokenizers": [
{"type": "Split", "pattern": {"Regex": "[\r\n]"}, "behavior": "Isolated", "invert": false},
{"type": "Split", "pattern": {"Regex": "\\s?\\p{L}+"}, "behavior": "Isolated", "invert": false},
{"type": "Split", "pattern": {"Regex": "\\s?\\p{P}+"}, "behavior": "Isolated", "invert": false},
{"type": "Split", "pattern": {"Regex": "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"}, "behavior": "Isolated", "invert": false},
{"type": "Digits", "individual_digits": true},
{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}
]})json";

constexpr char kGpt2[] =
    R"json({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})json";

struct Family {
  const char *name, *pre_tokenizer;
};
constexpr Family kFamilies[] = {{"v3", kV3}, {"llm", kLlm}, {"coder", kCoder}, {"gpt2", kGpt2}};

using nlohmann::json;
json added_tokens(const std::vector<std::string>& specials) {
  json list = json::array();
  for (size_t id = 0; id < specials.size(); ++id)
    list.push_back({{"id", id},
                    {"content", specials[id]},
                    {"single_word", false},
                    {"lstrip", false},
                    {"rstrip", false},
                    {"normalized", false},
                    {"special", true}});
  return list;
}

}  // namespace

json pattern_pre_tokenizer(const std::string& name) {
  for (const Family& f : kFamilies)
    if (name == f.name) return json::parse(f.pre_tokenizer);
  throw Error("train-tokenizer", "pattern \"" + name + "\" is not known", "one of v3, llm, coder, gpt2",
              ExitCode::usage);
}

void write_tokenizer(const std::string& directory, const TrainedBpe& bpe, const std::vector<std::string>& specials,
                     const json& pre_tokenizer, const std::string& bos, const std::string& eos) {
  json vocab = json::object(), merges = json::array();
  for (size_t id = 0; id < bpe.tokens.size(); ++id) vocab[bpe.tokens[id]] = id;
  for (const auto& [l, r] : bpe.merges)
    merges.push_back(bpe.tokens[static_cast<size_t>(l)] + " " + bpe.tokens[static_cast<size_t>(r)]);
  const json file = byte_level_json(
      {std::move(vocab), std::move(merges), added_tokens(specials), nullptr, pre_tokenizer, nullptr, false});
  json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"clean_up_tokenization_spaces", false},
                 {"add_bos_token", false},
                 {"add_eos_token", false}};
  if (!bos.empty()) config["bos_token"] = bos;
  if (!eos.empty()) config["eos_token"] = eos;
  io::StagedDirectory staged(directory);
  io::write_json((std::filesystem::path(staged.path()) / "tokenizer.json").string(), file);
  io::write_json((std::filesystem::path(staged.path()) / "tokenizer_config.json").string(), config);
  staged.publish();
}

}  // namespace birkhoff::text
