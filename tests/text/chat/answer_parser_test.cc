// Answers: goldens and streams whole, in random pieces and byte by byte; hostile text in linear time; no text is lost.
#include "text/chat/answer_parser.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <random>

#include "core/error.h"
#include "text/chat/chat_data.h"
#include "text/jinja/python_print.h"

namespace birkhoff::text::chat {
namespace {

using test::chat_dir;
using test::json_lines;

// Splits text into pieces of 1 to longest bytes; longest 0: one piece.
std::vector<std::string> pieces_of(const std::string& text, size_t longest, std::mt19937& random) {
  if (longest == 0) return {text};
  std::vector<std::string> out;
  for (size_t i = 0; i < text.size();) {
    const size_t n = 1 + random() % longest;
    out.push_back(text.substr(i, n));
    i += n;
  }
  return out;
}

// Checks on the way that the pieces given out add up to the whole.
Answer parse(const std::string& family, bool thinking, const std::vector<std::string>& pieces) {
  AnswerParser parser(family, thinking);
  Answer sum;
  const auto add = [&](const Answer& delta) {
    sum.content += delta.content;
    sum.reasoning += delta.reasoning;
    sum.calls.insert(sum.calls.end(), delta.calls.begin(), delta.calls.end());
  };
  for (const std::string& piece : pieces) add(parser.feed(piece));
  add(parser.finish());
  EXPECT_EQ(sum.content, parser.answer().content);
  EXPECT_EQ(sum.reasoning, parser.answer().reasoning);
  EXPECT_EQ(sum.calls, parser.answer().calls);
  return sum;
}

Answer parse(const std::string& family, bool thinking, const std::string& text) {
  return parse(family, thinking, std::vector<std::string>{text});
}

TEST(AnswerParser, Goldens) {
  std::mt19937 random(7);
  for (const auto& [family, file] : {std::pair{"v3.2", "official_v3_2_parse"}, {"v4", "official_v4_parse"}})
    for (const Value& line : json_lines(chat_dir() + "/goldens/" + file + ".jsonl")) {
      const std::string expected = json_dump(get(line, "message")).bytes(), text = get(line, "text").bytes();
      const bool thinking = thinking_of(get(line, "options"));
      for (const size_t longest : {0, 1, 2, 3, 7, 30, 200})
        EXPECT_EQ(json_dump(parse(family, thinking, pieces_of(text, longest, random)).to_message()).bytes(), expected)
            << get(line, "name").bytes() << " " << longest;
      // A leading <think> is optional on input.
      if (thinking) {
        EXPECT_EQ(json_dump(parse(family, true, "<think>" + text).to_message()).bytes(), expected);
      }
    }
}

struct Expected {
  std::string content, reasoning;
  std::vector<std::pair<std::string, std::string>> calls;  // name, arguments
};

// In the pieces given, whole, and cut at random places.
void expect_streamed(const std::string& family, const std::vector<std::string>& pieces, const Expected& expected) {
  std::mt19937 random(8);
  std::string whole;
  for (const std::string& piece : pieces) whole += piece;
  std::vector<std::vector<std::string>> ways = {pieces, {whole}};
  for (const size_t longest : {1, 2, 5, 17, 60}) ways.push_back(pieces_of(whole, longest, random));
  for (const auto& way : ways) {
    const Answer got = parse(family, false, way);
    EXPECT_EQ(got.content, expected.content);
    EXPECT_EQ(got.reasoning, expected.reasoning);
    ASSERT_EQ(got.calls.size(), expected.calls.size());
    for (size_t k = 0; k < got.calls.size(); ++k) {
      EXPECT_EQ(got.calls[k].name, expected.calls[k].first);
      EXPECT_EQ(got.calls[k].arguments, expected.calls[k].second);
    }
  }
}

TEST(AnswerParser, StreamsOfEveryFamily) {
  const std::string begin = "<｜tool▁calls▁begin｜>", end = "<｜tool▁calls▁end｜>", open = "<｜tool▁call▁begin｜>",
                    close = "<｜tool▁call▁end｜>", sep = "<｜tool▁sep｜>";
  expect_streamed("v3", {"Two and ", "two ", "are four."}, {"Two and two are four.", "", {}});
  expect_streamed(
      "v3",
      {begin, open, "function", sep, "depth_of\n```json\n{\"lake\"", ": \"Baikal\"}\n```", close, "\n" + open,
       "function" + sep + "depth_of\n```json\n", "{\"lake\": \"Tanganyika\", \"unit\": \"m\"}\n```" + close, end},
      {"", "", {{"depth_of", R"({"lake": "Baikal"})"}, {"depth_of", R"({"lake": "Tanganyika", "unit": "m"})"}}});
  expect_streamed("v3.1", {"<think>No tool ", "is needed.", "</think>", "Good ", "morning."},
                  {"Good morning.", "No tool is needed.", {}});
  expect_streamed("v3.1",
                  {"<think>I have to ", "look.</think>", begin, open + "depth_of", sep, "{\"lake\": ", "\"Baikal\"}",
                   close, open, "tide_at" + sep + "{}", close + end},
                  {"", "I have to look.", {{"depth_of", R"({"lake": "Baikal"})"}, {"tide_at", "{}"}}});
  const std::string block = "｜DSML｜";
  expect_streamed(
      "v4",
      {"Let me ", "see.\n\n<" + block, "tool_calls>\n<" + block + "invoke name=\"depth", "_of\">\n",
       "<" + block + "parameter name=\"lake\" string=\"true\">", "Bai", "kal & \"more\"", "</" + block + "parameter>\n",
       "<" + block + "parameter name=\"decimals\" string=\"false\">",
       "2</" + block + "parameter>\n</" + block + "invoke>\n",
       "<" + block + "invoke name=\"tide_at\">\n</" + block + "invoke>\n", "</" + block + "tool_calls>"},
      {"Let me see.", "", {{"depth_of", R"({"lake": "Baikal & \"more\"", "decimals": 2})"}, {"tide_at", "{}"}}});
}

TEST(AnswerParser, RecordedStreams) {
  if (!std::getenv("BIRKHOFF_DATA")) GTEST_SKIP() << "BIRKHOFF_DATA, which holds chat/streams, is not set";
  for (const auto& path : test::files_of(chat_dir() + "/streams", ".json")) {
    SCOPED_TRACE(path);
    const std::string folder = path.parent_path().filename().string();
    const Value file = parse_json(test::slurp(path)), output = get(file, "expected_output");
    std::vector<std::string> pieces;
    for (const Value& chunk : get(file, "input_stream").items()) {
      const Value content = get(get(get(get(chunk, "data"), "choices").items()[0], "delta"), "content");
      if (content.is(Kind::string)) pieces.push_back(content.bytes());
    }
    Expected expected{get(output, "normal_content").bytes(), get(output, "reasoning_content").bytes(), {}};
    for (const Value& call : get(output, "tool_calls").items()) {
      const Value function = get(call, "function");
      expected.calls.emplace_back(get(function, "name").bytes(), get(function, "arguments").bytes());
    }
    expect_streamed(folder.substr(std::string("deepseek-").size()), pieces, expected);
  }
}

constexpr const char* kCall =
    "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" "
    "string=\"true\">x</｜DSML｜parameter>\n</｜DSML｜invoke>\n";

TEST(AnswerParser, WhatIsNoCallStaysText) {
  const std::string call = kCall, end = "</｜DSML｜tool_calls>";
  const std::vector<std::pair<std::string, std::string>> cases = {
      // text, content
      {"plain <｜DSML｜ text", "plain <｜DSML｜ text"},
      {"a\n\n<｜DSML｜tool_calls>\noops", "a\n\n<｜DSML｜tool_calls>\noops"},
      {"a<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\"",
       "a<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\""},
      {"x</think>y", "x</think>y"},
      {"<｜end▁of▁sentence｜>more", "<｜end▁of▁sentence｜>more"},
      {"\n\n\n" + call + end + "tail", "\ntail"},
  };
  std::mt19937 random(9);
  for (size_t k = 0; k < cases.size(); ++k) {
    for (const size_t longest : {0, 1, 4}) {
      EXPECT_EQ(parse("v4", false, pieces_of(cases[k].first, longest, random)).content, cases[k].second);
      EXPECT_EQ(parse("v4", false, pieces_of(cases[k].first + "<｜end▁of▁sentence｜>", longest, random)).content,
                cases[k].second);
    }
  }
  // Cut off behind a whole call: the call counts, nothing but markup is left.
  const Answer cut = parse("v4", false, "a\n\n" + call);
  EXPECT_EQ(cut.content, "a\n");
  ASSERT_EQ(cut.calls.size(), 1u);
  EXPECT_EQ(cut.calls[0].arguments, "{\"a\": \"x\"}");
  // A parameter given twice spoils its call and no other.
  const std::string twice =
      "<｜DSML｜invoke name=\"g\">\n<｜DSML｜parameter name=\"a\" "
      "string=\"true\">1</｜DSML｜parameter>\n<｜DSML｜parameter name=\"a\" "
      "string=\"true\">2</｜DSML｜parameter>\n</｜DSML｜invoke>\n";
  const Answer spoiled = parse("v4", false, call + twice + end);
  EXPECT_EQ(spoiled.calls.size(), 1u);
  EXPECT_NE(spoiled.content.find(twice), std::string::npos);
}

TEST(AnswerParser, ReasoningWithoutAnEndIsReasoning) {
  EXPECT_EQ(parse("v3.1", true, "still thinking").reasoning, "still thinking");
  EXPECT_EQ(parse("v3.1", false, "<think>still<｜end▁of▁sentence｜>").reasoning, "still");
  EXPECT_EQ(parse("v3.1", false, "<thin").content, "<thin");
  EXPECT_EQ(parse("", false, "<think>a</think>b<｜tool▁calls▁begin｜>").content, "b<｜tool▁calls▁begin｜>");
  EXPECT_THROW(AnswerParser("v9", false), Error);
}

TEST(AnswerParser, HistoryIsWhatTemplatesTestFor) {
  Answer a;
  a.calls = {{"f", R"({"city": "Bern", "n": [1, 2.0]})"}, {"g", "no json"}, {"h", "[1]"}};
  EXPECT_EQ(
      json_dump(a.to_history(true)).bytes(),
      R"({"role": "assistant", "content": null, "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"city": "Bern", "n": [1, 2.0]}}}, )"
      R"({"type": "function", "function": {"name": "g", "arguments": "no json"}}, {"type": "function", "function": {"name": "h", "arguments": "[1]"}}]})");
  EXPECT_EQ(get(get(get(a.to_history(false), "tool_calls").items()[0], "function"), "arguments").bytes(),
            a.calls[0].arguments);
  a.calls.clear();
  EXPECT_EQ(json_dump(a.to_history(true)).bytes(), R"({"role": "assistant", "content": ""})");
  a.reasoning = "r";
  EXPECT_EQ(json_dump(a.to_history(true)).bytes(), R"({"role": "assistant", "content": "", "reasoning_content": "r"})");
}

// A key may hold any number of ends that are none; each costs no stack.
TEST(AnswerParser, KeysWithManyFalseEnds) {
  std::string key;
  for (int i = 0; i < 100000; ++i) key += "\" string=\"";
  const std::string open = "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"";
  AnswerParser parser("v4", false);
  parser.feed("\n\n" + open + key +
              "k\" string=\"true\">v</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>");
  parser.finish();
  ASSERT_EQ(parser.answer().calls.size(), 1u);
  EXPECT_GT(parser.answer().calls[0].arguments.size(), key.size());
}

// Every byte of hostile text comes out again, as content, reasoning or part of a call; the time is linear.
TEST(AnswerParser, HostileTextIsLinearAndKept) {
  const std::vector<std::string> units = {"<",
                                          "\n",
                                          "\n\n<｜DSML｜",
                                          "<｜DSML｜tool_calls>",
                                          "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"",
                                          "</think>",
                                          "<think>",
                                          kCall,
                                          "<｜end▁of▁sentence｜>",
                                          "\" string=\"",
                                          "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
                                          "｜"};
  for (const char* family : {"v3", "v3.1", "v3.2", "v4"})
    for (const std::string& prefix : {std::string(), std::string("<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\""),
                                      std::string("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>")})
      for (const std::string& unit : units) {
        std::string text = prefix;
        while (text.size() < (size_t{1} << 18)) text += unit;
        const auto begin = std::chrono::steady_clock::now();
        AnswerParser parser(family, false);
        for (size_t i = 0; i < text.size(); i += 64) parser.feed(std::string_view(text).substr(i, 64));
        parser.finish();
        EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), 5.0)
            << family << " " << unit;
        const Answer& a = parser.answer();
        if (a.calls.empty() && unit != "</think>" && unit != "<think>" && unit != "<｜end▁of▁sentence｜>") {
          EXPECT_EQ(a.content, text) << family << " " << unit;
        }
      }
}

}  // namespace
}  // namespace birkhoff::text::chat
