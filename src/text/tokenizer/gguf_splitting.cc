#include "text/tokenizer/gguf_splitting.h"

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace birkhoff::text {
namespace {

// The expressions of the released tokenizer.json files.
constexpr const char* kLineBreak = "[\r\n]";
constexpr const char* kHanHangul = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+";
constexpr const char* kHanKana = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+";
constexpr const char* kLettersOfLlm =
    "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-"
    "\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-"
    "\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-"
    "\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-"
    "\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-"
    "\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943]+";
constexpr const char* kMarksOfLlm = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+";
constexpr const char* kWordsOfV3 =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}"
    "]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kWordsOfLlama3 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r"
    "\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kWordsOfQwen =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
    "\\s+(?!\\S)|\\s+";

struct NamedSplitting {
  const char* name;
  GgufSplitting rules;
};

const std::vector<NamedSplitting>& splittings() {
  static const std::vector<NamedSplitting> list = [] {
    GgufSplitting llm, coder, v3, llama, qwen, distilled, smollm, gpt2;
    llm.patterns = {kLineBreak, kLettersOfLlm, kMarksOfLlm, "\\s+$", kHanHangul};
    llm.single_digits = true;
    coder.patterns = {kLineBreak, "\\s?\\p{L}+", "\\s?\\p{P}+", kHanHangul};
    coder.single_digits = true;
    v3.patterns = {"\\p{N}{1,3}", kHanKana, kWordsOfV3};
    llama.patterns = {kWordsOfLlama3};
    llama.ignore_merges = llama.adds_bos = true;
    distilled.patterns = {kWordsOfQwen};
    qwen = distilled;
    qwen.nfc = true;
    smollm.single_digits = smollm.gpt2 = true;
    gpt2.gpt2 = true;
    return std::vector<NamedSplitting>{
        {"deepseek-llm", llm}, {"deepseek-coder", coder}, {"deepseek-v3", v3}, {"llama-bpe", llama},
        {"llama-v3", llama},   {"llama3", llama},         {"qwen2", qwen},     {"deepseek-r1-qwen", distilled},
        {"smollm", smollm},    {"gpt-2", gpt2},           {"default", gpt2}};
  }();
  return list;
}

}  // namespace

nlohmann::json GgufSplitting::normalizer() const {
  return nfc ? nlohmann::json({{"type", "NFC"}}) : nlohmann::json(nullptr);
}

nlohmann::json GgufSplitting::pre_tokenizer() const {
  nlohmann::json stages = nlohmann::json::array();
  for (const char* p : patterns)
    stages.push_back({{"type", "Split"}, {"pattern", {{"Regex", p}}}, {"behavior", "Isolated"}, {"invert", false}});
  if (single_digits) stages.push_back({{"type", "Digits"}, {"individual_digits", true}});
  stages.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", gpt2}});
  return {{"type", "Sequence"}, {"pretokenizers", stages}};
}

const GgufSplitting& find_gguf_splitting(std::string_view pre) {
  std::string known;
  for (const NamedSplitting& s : splittings()) {
    if (pre == s.name) return s.rules;
    known += (known.empty() ? "" : ", ") + std::string(s.name);
  }
  throw Error("tokenizer", "tokenizer.ggml.pre is \"" + std::string(pre.substr(0, 60)) + "\", which is not known",
              "known: " + known);
}

namespace {

// Entries of a component, which stands alone or in a Sequence.
std::vector<nlohmann::json> stages(const nlohmann::json& component, const char* list) {
  if (component.is_null()) return {};
  if (component.value("type", "") != "Sequence") return {component};
  std::vector<nlohmann::json> all;
  for (const nlohmann::json& stage : component.value(list, nlohmann::json::array()))
    for (const nlohmann::json& s : stages(stage, list)) all.push_back(s);
  return all;
}

// What changes no id: offsets, and fields that mean the same when they are absent.
nlohmann::json plain(nlohmann::json stage) {
  stage.erase("trim_offsets");
  if (stage["type"] == "Split" && stage.value("invert", false) == false) stage.erase("invert");
  return stage;
}

std::vector<nlohmann::json> plain_stages(const nlohmann::json& component, const char* list) {
  std::vector<nlohmann::json> all = stages(component, list);
  for (nlohmann::json& s : all) s = plain(std::move(s));
  return all;
}

}  // namespace

std::string gguf_splitting_name(const nlohmann::json& tokenizer) {
  const auto part = [&](const char* name) { return tokenizer.value(name, nlohmann::json()); };
  const auto normalizers = plain_stages(part("normalizer"), "normalizers");
  const auto pre_tokenizers = plain_stages(part("pre_tokenizer"), "pretokenizers");
  const bool ignore_merges = part("model").value("ignore_merges", false);
  for (const NamedSplitting& s : splittings())
    if (ignore_merges == s.rules.ignore_merges && normalizers == plain_stages(s.rules.normalizer(), "normalizers") &&
        pre_tokenizers == plain_stages(s.rules.pre_tokenizer(), "pretokenizers"))
      return s.name;
  return "";
}

}  // namespace birkhoff::text
