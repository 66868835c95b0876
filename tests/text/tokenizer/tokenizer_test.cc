#include "text/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "core/error.h"
#include "support/golden.h"
#include "support/temp_dir.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/json_tokenizer.h"
#include "text/tokenizer/sentencepiece_tokenizer.h"

namespace birkhoff::text {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

const std::string kGolden = test::committed_dir() + "/tokenizers/";

json read(const std::string& path) { return json::parse(std::ifstream(path)); }

json v3_json() { return read(kGolden + "v3/tokenizer.json"); }

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  ADD_FAILURE() << "no Error";
  return "";
}

void expect_refused(const json& file, const std::string& named) {
  const std::string what = message_of([&] { parse_tokenizer_json(file.dump(), {}); });
  EXPECT_NE(what.find(named), std::string::npos) << what << "\n should name " << named;
}

TEST(Tokenizer, UnknownComponentsAreNamed) {
  json j = v3_json();
  j["pre_tokenizer"] = {{"type", "Spliit"}};
  expect_refused(j, "pre_tokenizer \"Spliit\"");
  j = v3_json();
  j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Glued";
  expect_refused(j, "Glued");
  j = v3_json();
  j["normalizer"] = {{"type", "Precompiled"}};
  expect_refused(j, "normalizer \"Precompiled\"");
  j = v3_json();
  j["decoder"] = {{"type", "CTC"}};
  expect_refused(j, "decoder \"CTC\"");
  j = v3_json();
  j["post_processor"] = {{"type", "Other"}};
  expect_refused(j, "post_processor \"Other\"");
  j = v3_json();
  j["model"]["type"] = "WordPiece";
  expect_refused(j, "WordPiece");
  j = v3_json();
  j["version"] = "2.0";
  expect_refused(j, "2.0");
}

TEST(Tokenizer, DamagedTablesAreNamed) {
  json j = v3_json();
  j["model"]["merges"][5] = "zz qq";
  expect_refused(j, "zz");
  j["model"]["merges"][5] = "one two three";
  expect_refused(j, "entry 5");
  j = v3_json();
  j["model"]["dropout"] = 0.1;
  expect_refused(j, "dropout");
  j = v3_json();
  j["model"]["vocab"]["new"] = 3;
  expect_refused(j, "both have id 3");
  j["model"]["vocab"]["new"] = -1;
  expect_refused(j, "id -1");
  j["model"]["vocab"]["new"] = 1 << 30;
  expect_refused(j, std::to_string(1 << 30));
  j = v3_json();
  j["added_tokens"].back()["id"] = 5000;
  expect_refused(j, "5000");
  EXPECT_NE(message_of([] { parse_tokenizer_json("{\"model\": ", {}); }).find("JSON"), std::string::npos);
  EXPECT_NE(message_of([] { Tokenizer::open("/nowhere/at/all"); }).find("/nowhere/at/all"), std::string::npos);
}

TEST(Tokenizer, MergesMayBePairs) {
  json j = v3_json();
  for (json& m : j["model"]["merges"]) {
    const auto line = m.get<std::string>();
    const size_t space = line.find(' ');
    m = {line.substr(0, space), line.substr(space + 1)};
  }
  const auto pairs = parse_tokenizer_json(j.dump(), {}), lines = parse_tokenizer_json(v3_json().dump(), {});
  const std::string text = "The quick brown fox, 1234 times.\n\n  Über 中文";
  EXPECT_EQ(pairs->Tokenizer::encode(text), lines->Tokenizer::encode(text));
}

TEST(Tokenizer, AddedTokensInMessagesArePlainText) {
  const auto t = Tokenizer::open(kGolden + "v3");
  const std::string mark = "<｜User｜>";
  const int32_t user = t->id(mark).value();
  EXPECT_EQ(t->encode(mark), Ids{user});
  const Ids plain = t->encode("a" + mark, Tokenizer::Added::plain);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), user), 0);
  EXPECT_EQ(t->decode(plain), "a" + mark);
  // The 13 letters that are added tokens of LLM stay letters.
  const auto llm = Tokenizer::open(kGolden + "llm");
  EXPECT_EQ(llm->encode("Führer", Tokenizer::Added::plain), llm->encode("Führer"));
  EXPECT_NE(llm->encode("<｜end▁of▁sentence｜>", Tokenizer::Added::plain), llm->encode("<｜end▁of▁sentence｜>"));
}

TEST(Tokenizer, DirectorySettings) {
  const auto v3 = Tokenizer::open(kGolden + "v3");  // add_bos_token
  EXPECT_EQ(v3->bos(), 0);
  EXPECT_EQ(v3->eos(), 1);
  EXPECT_EQ(v3->encode_with_special("a"), (Ids{0, v3->encode("a")[0]}));
  EXPECT_EQ(v3->files().size(), 2u);
  const auto v4 = Tokenizer::open(kGolden + "v4");  // no add_bos_token
  EXPECT_EQ(v4->encode_with_special("a"), v4->encode("a"));
  EXPECT_EQ(v4->bos(), 0);
  const auto llm = Tokenizer::open(kGolden + "llm");  // no tokenizer_config.json
  EXPECT_FALSE(llm->bos() || llm->eos());
}

TEST(Tokenizer, ConfigNamesMoreTokens) {
  const test::TempDir dir;
  std::filesystem::copy(kGolden + "v3/tokenizer.json", dir.path() + "/tokenizer.json");
  const int32_t next = Tokenizer::open(kGolden + "v3")->size();
  json config = {{"eos_token", {{"content", "<end>"}}},
                 {"bos_token", nullptr},
                 {"add_eos_token", true},
                 {"added_tokens_decoder", {{std::to_string(next), {{"content", "<end>"}, {"special", true}}}}}};
  std::ofstream(dir.path() + "/tokenizer_config.json") << config.dump();
  const auto t = Tokenizer::open(dir.path());
  EXPECT_EQ(t->eos(), next);
  EXPECT_EQ(t->encode_with_special("a<end>"), (Ids{t->encode("a")[0], next, next}));
  EXPECT_EQ(t->decode(t->encode("a<end>"), true), "a");
  config["eos_token"] = "<absent>";
  std::ofstream(dir.path() + "/tokenizer_config.json") << config.dump();
  EXPECT_NE(message_of([&] { Tokenizer::open(dir.path()); }).find("<absent>"), std::string::npos);
}

TEST(Tokenizer, TextThatIsNotUtf8IsRefusedWithItsPlace) {
  const auto t = Tokenizer::open(kGolden + "v3");
  EXPECT_NE(message_of([&] { t->encode("abc\xFF"); }).find("byte 3"), std::string::npos);
  const std::string nul("a\0b", 3);
  EXPECT_EQ(t->decode(t->encode(nul)), nul);
}

TEST(Tokenizer, IdsWithoutTokensDecodeToNothing) {
  const auto t = Tokenizer::open(kGolden + "v3");
  EXPECT_EQ(t->decode(Ids{t->size() + 5, t->encode("a")[0], -3, INT32_MAX}), "a");
  EXPECT_FALSE(t->token(t->size()));
  const auto s = Tokenizer::open(kGolden + "sentencepiece");
  EXPECT_EQ(s->decode(Ids{s->size() + 5, -3}), "");
}

// Long pieces are merged with a queue, short ones by looking; the order of merges must be the same.
TEST(Bpe, TheQueueMergesAsTheScanDoes) {
  Vocabulary v;
  std::vector<std::string> tokens = {"a", "b", "c"};
  std::vector<std::pair<std::string, std::string>> rules;
  std::mt19937 random(3);
  while (rules.size() < 60) {
    const std::string l = tokens[random() % tokens.size()], r = tokens[random() % tokens.size()];
    if (l.size() + r.size() > 9 || std::find(tokens.begin(), tokens.end(), l + r) != tokens.end()) continue;
    rules.emplace_back(l, r);
    tokens.push_back(l + r);
  }
  for (size_t i = 0; i < tokens.size(); ++i) v.add(tokens[i], static_cast<int64_t>(i));
  std::shuffle(rules.begin(), rules.end(), random);  // a file may rank a merge before those that make its parts
  const Bpe bpe(v, {rules.begin(), rules.end()}, {}, false);
  const auto naive = [&](const std::string& text) {
    std::vector<std::string> s;
    for (const char c : text) s.emplace_back(1, c);
    for (;;) {
      size_t best = rules.size(), at = 0;
      for (size_t i = 0; i + 1 < s.size(); ++i)
        for (size_t r = 0; r < best; ++r)
          if (rules[r].first == s[i] && rules[r].second == s[i + 1]) best = r, at = i;
      if (best == rules.size()) break;
      s[at] += s[at + 1];
      s.erase(s.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    }
    Ids ids;
    for (const auto& t : s) ids.push_back(v.find(t));
    return ids;
  };
  BpeScratch scratch;
  for (const size_t length : {1u, 2u, 31u, 32u, 47u, 48u, 49u, 50u, 200u}) {
    for (int i = 0; i < 20; ++i) {
      std::string text;
      for (size_t k = 0; k < length; ++k) text.push_back(static_cast<char>('a' + random() % 3));
      Pieces p;
      p.reset(text, true);
      Ids got, again;
      bpe.encode(p, scratch, got);
      bpe.encode(p, scratch, again);  // from the cache
      EXPECT_EQ(got, naive(text)) << text;
      EXPECT_EQ(again, got);
    }
  }
}

TEST(WordCache, WordsThatDifferInLengthOrPlaceDoNotShareIds) {
  WordCache cache;
  std::vector<std::string> words;
  for (int i = 0; i < 20000; ++i)
    words.push_back(std::string(static_cast<size_t>(i % 5), '\0') + std::to_string(i) +
                    std::string(static_cast<size_t>(i % 3), '\0'));
  int hits = 0;
  for (int round = 0; round < 2; ++round) {
    for (size_t i = 0; i < words.size(); ++i) {
      const char* p = words[i].data();
      const WordCache::Key k = WordCache::key(p, words[i].size(), p + words[i].size());
      Ids ids;
      if (cache.find(k, ids)) {
        ++hits;
        ASSERT_EQ(ids, (Ids{static_cast<int32_t>(i)}));
      } else {
        cache.insert(k, ids = {static_cast<int32_t>(i)});
      }
    }
  }
  EXPECT_GT(hits, 5000);
}

TEST(Tokenizer, ManyThreadsGiveTheSameIds) {
  const auto t = Tokenizer::open(kGolden + "coder");
  std::vector<std::string> texts;
  std::mt19937 random(5);
  for (int i = 0; i < 200; ++i) {
    std::string s;
    for (int k = 0; k < 40; ++k) s += (random() % 3 ? " word" : "\n\tx = ") + std::to_string(random() % 50);
    texts.push_back(s);
  }
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  const auto one = t->encode_batch(views, 1), three = t->encode_batch(views, 3);
  EXPECT_EQ(one, three);
  for (size_t i = 0; i < views.size(); ++i) EXPECT_EQ(one[i], t->encode(views[i]));
}

TEST(StreamDecoder, NeverBreaksACharacter) {
  const auto t = Tokenizer::open(kGolden + "v3");
  const std::string text = "né 日本 😀👩‍👩‍👧 end";
  StreamDecoder d(t);
  std::string all;
  int parts = 0;
  for (const int32_t id : t->encode(text)) {
    const std::string part = d.push(id);
    EXPECT_EQ(part.find("\uFFFD"), std::string::npos);
    EXPECT_NO_THROW(check_text(part));
    parts += !part.empty();
    all += part;
  }
  EXPECT_EQ(all + d.finish(), text);
  EXPECT_GT(parts, 5);
  const Ids open = t->encode("😀");
  ASSERT_GT(open.size(), 1u);
  EXPECT_EQ(d.push(open[0]), "");
  EXPECT_EQ(d.finish(), "\uFFFD");
}

TEST(StreamDecoder, SentencePieceKeepsSpacesAndBytes) {
  const auto t = Tokenizer::open(kGolden + "sentencepiece");
  const std::string text = "Once upon a time, 日 was  é.";
  const Ids ids = t->encode(text);
  StreamDecoder d(t);
  std::string all;
  for (const int32_t id : ids) {
    const std::string part = d.push(id);
    EXPECT_NO_THROW(check_text(part));
    all += part;
  }
  EXPECT_EQ(all + d.finish(), t->decode(ids));
}

TEST(SentencePiece, DamagedModelsAreRefusedBeforeTheLibrarySeesThem) {
  std::ifstream in(kGolden + "sentencepiece/tokenizer.model", std::ios::binary);
  const std::string good{std::istreambuf_iterator<char>(in), {}};
  EXPECT_NO_THROW(check_sentencepiece_model(good));
  EXPECT_THROW(check_sentencepiece_model(""), Error);
  EXPECT_THROW(check_sentencepiece_model(good.substr(0, good.size() - 3)), Error);
  std::string twice = good + good.substr(0, 40);
  EXPECT_THROW(check_sentencepiece_model(twice), Error);
  std::string type = good;
  const size_t spec = type.find(std::string("\x12\x22\x18\x02", 4));  // trainer_spec { model_type: BPE
  ASSERT_NE(spec, std::string::npos);
  type[spec + 3] = 1;
  EXPECT_NE(message_of([&] { check_sentencepiece_model(type); }).find("model type 1"), std::string::npos);
}

TEST(SentencePiece, TokensThatTheDirectoryNamesAreCutOut) {
  const test::TempDir dir;
  std::filesystem::copy(kGolden + "sentencepiece/tokenizer.model", dir.path() + "/tokenizer.model");
  const auto bare = Tokenizer::open(dir.path());
  EXPECT_EQ(bare->encode_with_special("a")[0], bare->bos().value());
  const json config = {{"added_tokens_decoder", {{"2", {{"content", "</s>"}, {"special", true}}}}},
                       {"add_bos_token", false},
                       {"eos_token", "</s>"}};
  std::ofstream(dir.path() + "/tokenizer_config.json") << config.dump();
  const auto t = Tokenizer::open(dir.path());
  EXPECT_EQ(t->encode_with_special("a</s>").back(), 2);
  EXPECT_NE(t->encode("a</s>", Tokenizer::Added::plain).back(), 2);
  EXPECT_EQ(t->encode("a</s>", Tokenizer::Added::plain), bare->encode("a</s>"));
}

}  // namespace
}  // namespace birkhoff::text
