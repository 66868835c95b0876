#include "eval/answer_store.h"

#include <fstream>

#include "core/error.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using eval::AnswerStore;

std::vector<std::string> stored_lines(const std::string& path) {
  std::ifstream in(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

TEST(AnswerStore, GivesBackWhatWasAddedInAnotherLife) {
  TempDir dir;
  const std::string path = dir / "answers.jsonl";
  {
    AnswerStore store(path);
    store.add("a", eval::ContinuationScore{-1.0 / 3, false});
    store.add("b", AnswerStore::Written{"line\n\"two\" \xc3\xa9", 7});
    EXPECT_EQ(store.score("a")->loglikelihood, -1.0 / 3);
  }
  const AnswerStore store(path);
  EXPECT_EQ(store.damaged(), 0);
  EXPECT_EQ(store.score("a")->loglikelihood, -1.0 / 3);
  EXPECT_FALSE(store.score("a")->greedy);
  EXPECT_EQ(store.text("b")->text, "line\n\"two\" \xc3\xa9");
  EXPECT_EQ(store.text("b")->tokens, 7);
  EXPECT_EQ(store.score("b"), nullptr);
  EXPECT_EQ(store.text("a"), nullptr);
}

TEST(AnswerStore, PassesOverDamagedLinesAndGoesOnBehindAHalfOne) {
  TempDir dir;
  const std::string path = dir / "answers.jsonl";
  for (const char* key : {"a", "b", "c"}) AnswerStore(path).add(key, eval::ContinuationScore{-1.5, true});
  std::vector<std::string> lines = stored_lines(path);
  ASSERT_EQ(lines.size(), 3u);
  lines[0].replace(lines[0].find("-1.5"), 4, "-2.5");  // a digit that changed is no answer
  std::ofstream(path) << lines[0] << "\nno json\n[]\n" << lines[1] << "\n" << lines[2].substr(0, 20);
  {
    AnswerStore store(path);
    EXPECT_EQ(store.damaged(), 4);
    EXPECT_EQ(store.score("a"), nullptr);
    ASSERT_NE(store.score("b"), nullptr);
    EXPECT_EQ(store.score("c"), nullptr);
    store.add("c", eval::ContinuationScore{-3, false});
  }
  EXPECT_EQ(AnswerStore(path).score("c")->loglikelihood, -3);
}

TEST(AnswerStore, KeysTellRequestsApart) {
  const eval::Continuation c{{1, 2, 3, 4}, 2};
  const std::string key = eval::request_key("model", c);
  EXPECT_EQ(key.size(), 32u);
  EXPECT_EQ(key, eval::request_key("model", eval::Continuation{{1, 2, 3, 4}, 2}));
  EXPECT_NE(key, eval::request_key("mode", c));
  EXPECT_NE(key, eval::request_key("model", eval::Continuation{{1, 2, 3, 4}, 3}));
  EXPECT_NE(key, eval::request_key("model", eval::Continuation{{1, 2, 3, 5}, 2}));
  const std::vector<int32_t> prompt = {1, 2, 3, 4};
  const std::string text = eval::request_key("model", prompt, {"Q", "\n"}, 9);
  EXPECT_NE(text, key);
  EXPECT_NE(text, eval::request_key("model", prompt, {"Q\n"}, 9));
  EXPECT_NE(text, eval::request_key("model", prompt, {"Q", "\n"}, 8));
}

TEST(AnswerStore, RefusesAFolderThatIsNotThere) { EXPECT_THROW(AnswerStore("/no/such/folder/answers.jsonl"), Error); }

}  // namespace
}  // namespace birkhoff::test
