// A file whose steps multiply text is refused, quickly and before the memory is gone.
#include "text/tokenizer/growth.h"

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "text/tokenizer/json_tokenizer.h"

namespace birkhoff::text {
namespace {

using nlohmann::json;

json doubling_step() { return {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}}; }
json many_steps(const json& step, int n, const char* list) {
  return {{"type", "Sequence"}, {list, json(std::vector<json>(static_cast<size_t>(n), step))}};
}

std::shared_ptr<JsonTokenizer> growing_tokenizer(const json& normalizer, const json& decoder, const char* before = "") {
  const json file{{"version", "1.0"},
                  {"normalizer", normalizer},
                  {"decoder", decoder},
                  {"model", {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 1}}}, {"merges", json::array()}}}};
  return parse_tokenizer_json(before + file.dump(), {});
}

template <class F>
void expect_growth_refused(const char* kind, F f) {
  const auto start = std::chrono::steady_clock::now();
  try {
    f();
    ADD_FAILURE() << kind << ": nothing was refused";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(kind), std::string::npos) << e.what();
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  EXPECT_LT(took.count(), 10) << "without limits it does not end";
}

TEST(Growth, NormalizersThatDouble) {
  const auto t = growing_tokenizer(many_steps(doubling_step(), 60, "normalizers"), nullptr);
  std::vector<int32_t> ids;
  expect_growth_refused("normalizer", [&] { t->encode("a", ids, Tokenizer::Added::match); });
}

TEST(Growth, NormalizersThatPrepend) {
  const json megabyte{{"type", "Prepend"}, {"prepend", std::string(1'000'000, 'a')}};
  const auto t = growing_tokenizer(many_steps(megabyte, 100, "normalizers"), nullptr);
  std::vector<int32_t> ids;
  expect_growth_refused("normalizer", [&] { t->encode("b", ids, Tokenizer::Added::match); });
}

TEST(Growth, OneStepThatMultiplies) {
  json step = doubling_step();
  step["content"] = std::string(1'000'000, 'a');
  const auto t = growing_tokenizer(step, step);
  std::vector<int32_t> ids;
  expect_growth_refused("normalizer", [&] { t->encode(std::string(1'000'000, 'a'), ids, Tokenizer::Added::match); });
  expect_growth_refused("decoder", [&] { t->decode(std::vector<int32_t>(1'000'000, 0), false); });
}

TEST(Growth, DecodersThatDouble) {
  const auto t = growing_tokenizer(nullptr, many_steps(doubling_step(), 60, "decoders"));
  expect_growth_refused("decoder", [&] { t->decode(std::vector<int32_t>{0}, false); });
}

TEST(Growth, EndlessSteps) {
  expect_growth_refused("normalizer", [&] {
    growing_tokenizer(many_steps({{"type", "NFC"}}, 100'000, "normalizers"), nullptr);
  });
  expect_growth_refused("decoder", [&] {
    growing_tokenizer(nullptr, many_steps({{"type", "Fuse"}}, 100'000, "decoders"));
  });
}

// The limit is of a text, not of its characters: what real steps do is far from it.
TEST(Growth, WhatCharactersBecomeIsNoGrowth) {
  const auto t = growing_tokenizer({{"type", "NFKD"}}, nullptr);
  std::string text;
  for (int i = 0; i < 200'000; ++i) text += "\uFDFA";  // 3 bytes become 33
  std::vector<int32_t> ids;
  EXPECT_NO_THROW(t->encode(text, ids, Tokenizer::Added::match));
}

TEST(Growth, AByteOrderMarkIsReadPast) {
  std::vector<int32_t> ids;
  growing_tokenizer(nullptr, nullptr, "\xEF\xBB\xBF")->encode("ab", ids, Tokenizer::Added::match);
  EXPECT_EQ(ids, (std::vector<int32_t>{0, 1}));
}

}  // namespace
}  // namespace birkhoff::text
