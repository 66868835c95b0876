#include "text/chat/training_sample.h"

#include <gtest/gtest.h>

#include "text/chat/chat_data.h"

namespace birkhoff::text::chat {
namespace {

// Learnt stretches in braces.
std::vector<std::string> shown(const ChatFormat& format, const std::string& messages, SampleNotes& notes,
                               const std::string& options = "{}") {
  std::vector<std::string> out;
  for (const TrainingSample& sample : training_samples(format, parse_json(messages), {}, parse_json(options), notes)) {
    out.emplace_back();
    for (const Stretch& s : sample) out.back() += s.learn ? "{" + s.text.bytes() + "}" : s.text.bytes();
  }
  return out;
}

ChatFormat of_template(const char* name) {
  return ChatFormat::from_template(test::slurp(test::chat_dir() + "/templates/" + name + ".jinja"));
}

const std::string kTwo =
    R"([{"role": "system", "content": "S"}, {"role": "user", "content": "q1"}, {"role": "assistant", "content": "a1"},
        {"role": "user", "content": "q2"}, {"role": "assistant", "content": "a2"}])";

TEST(TrainingSample, LearnsTurnsAndTheirEndAndNothingElse) {
  SampleNotes notes;
  const std::string eos = "<｜end▁of▁sentence｜>", bos = "<｜begin▁of▁sentence｜>";
  EXPECT_EQ(shown(of_template("deepseek_v3"), kTwo, notes),
            std::vector<std::string>{bos + "S<｜User｜>q1<｜Assistant｜>{a1" + eos + "}<｜User｜>q2<｜Assistant｜>{a2" +
                                     eos + "}"});
  EXPECT_EQ(shown(of_template("deepseek_v2"), kTwo, notes),
            std::vector<std::string>{bos + "S\n\nUser: q1\n\nAssistant:{ a1" + eos + "}User: q2\n\nAssistant:{ a2" +
                                     eos + "}"});
  EXPECT_EQ(shown(of_template("deepseek_v3_1"), kTwo, notes),
            std::vector<std::string>{bos + "S<｜User｜>q1<｜Assistant｜></think>{a1" + eos +
                                     "}<｜User｜>q2<｜Assistant｜></think>{a2" + eos + "}"});
  EXPECT_EQ(shown(ChatFormat::native("v4"), kTwo, notes),
            std::vector<std::string>{bos + "S<｜User｜>q1<｜Assistant｜></think>{a1" + eos +
                                     "}<｜User｜>q2<｜Assistant｜></think>{a2" + eos + "}"});
  EXPECT_EQ(notes.turns, 8);
  EXPECT_EQ(notes.rewritten + notes.without_end, 0);
}

TEST(TrainingSample, AnOpenedThoughtThatHistoryForgetsIsNoObstacle) {
  SampleNotes notes;
  const auto samples = shown(of_template("deepseek_r1_distill"), kTwo, notes);
  ASSERT_EQ(samples.size(), 1u);
  EXPECT_NE(
      samples[0].find("<｜Assistant｜>{a1<｜end▁of▁sentence｜>}<｜User｜>q2<｜Assistant｜>{a2<｜end▁of▁sentence｜>}"),
      std::string::npos)
      << samples[0];
}

// Where prompt and finished turn part is no place to cut when both go on with the same letter.
TEST(TrainingSample, NoTokenAndNoAnswerIsCutInTheMiddle) {
  SampleNotes notes;
  const std::string eos = "<｜end▁of▁sentence｜>", bos = "<｜begin▁of▁sentence｜>";
  const std::string one = R"([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])";
  EXPECT_EQ(shown(of_template("deepseek_v3_1"), one, notes, R"({"thinking": true})"),
            std::vector<std::string>{bos + "<｜User｜>q<｜Assistant｜>{</think>a" + eos + "}"});
  const std::string html = R"([{"role": "user", "content": "<q>"}, {"role": "assistant", "content": "<b>a</b>"}])";
  EXPECT_EQ(shown(of_template("deepseek_r1_distill"), html, notes),
            std::vector<std::string>{bos + "<｜User｜><q><｜Assistant｜>{<b>a</b>" + eos + "}"});
  // Neither does a tag of the question reach into the answer's beginning.
  const std::string source =
      "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}=[/a]{{ m.content }}{{ eos_token }}{% "
      "endif %}{% endfor %}{% if add_generation_prompt %}=[/b]{% endif %}";
  const std::string open = R"([{"role": "user", "content": "x<"}, {"role": "assistant", "content": "a"}])";
  EXPECT_EQ(shown(ChatFormat::from_template(source), open, notes), std::vector<std::string>{"x<={[/a]a" + eos + "}"});
  EXPECT_EQ(notes.rewritten + notes.without_end, 0);
}

TEST(TrainingSample, ReasoningThatLaterTurnsDropIsLearntByItself) {
  SampleNotes notes;
  const std::string thoughts =
      R"([{"role": "user", "content": "q1"}, {"role": "assistant", "reasoning_content": "r1", "content": "a1"},
          {"role": "user", "content": "q2"}, {"role": "assistant", "reasoning_content": "r2", "content": "a2"}])";
  const std::string eos = "<｜end▁of▁sentence｜>", bos = "<｜begin▁of▁sentence｜>";
  EXPECT_EQ(shown(ChatFormat::native("v4"), thoughts, notes),
            (std::vector<std::string>{bos + "<｜User｜>q1<｜Assistant｜><think>{r1</think>a1" + eos + "}",
                                      bos + "<｜User｜>q1<｜Assistant｜></think>a1" + eos +
                                          "<｜User｜>q2<｜Assistant｜><think>{r2</think>a2" + eos + "}"}));
  EXPECT_EQ(shown(ChatFormat::native("v4"), thoughts, notes, R"({"thinking_mode": "thinking", "drop_thinking": false})")
                .size(),
            1u);
}

TEST(TrainingSample, CallsAreLearntWithTheirMarkup) {
  SampleNotes notes;
  const std::string calls =
      R"([{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
          {"role": "tool", "tool_call_id": "c", "content": "r"}, {"role": "assistant", "content": "a"}])";
  const auto samples = shown(ChatFormat::native("v4"), calls, notes);
  ASSERT_EQ(samples.size(), 1u);
  EXPECT_NE(samples[0].find("</think>{\n\n<｜DSML｜tool_calls>"), std::string::npos) << samples[0];
  EXPECT_NE(samples[0].find("}<｜User｜><tool_result>r</tool_result><｜Assistant｜></think>{a"), std::string::npos)
      << samples[0];
}

TEST(TrainingSample, TextBehindTheEndTokenIsNotLearnt) {
  SampleNotes notes;
  const std::string source =
      "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}\n{% endfor %}{% if add_generation_prompt "
      "%}<assistant>{% endif %}";
  const std::string eos = "<｜end▁of▁sentence｜>";
  // An end token inside a content is no end.
  const std::string tricky =
      R"([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a<｜end▁of▁sentence｜>b"}, {"role": "user", "content": "x"}])";
  EXPECT_EQ(shown(ChatFormat::from_template(source), tricky, notes),
            std::vector<std::string>{"<user>q" + eos + "\n<assistant>{a" + eos + "b" + eos + "}"});
  EXPECT_EQ(
      shown(ChatFormat::from_template("{% for m in messages %}{{ m.content }}|{% endfor %}"), tricky, notes).size(),
      1u);
  EXPECT_EQ(notes.without_end, 1);
}

}  // namespace
}  // namespace birkhoff::text::chat
