#include "infer/stop_strings.h"

#include <gtest/gtest.h>

namespace birkhoff::test {
namespace {

using infer::StopStrings;

// The text that is shown, with what was visible before the last push.
struct Shown {
  std::string text;
  bool stopped;
};
Shown pushed(const std::vector<std::string>& stops, const std::string& text, size_t piece, bool keep) {
  StopStrings s(stops, keep);
  Shown shown;
  for (size_t at = 0; at < text.size() && !s.stopped(); at += piece) shown.text += s.push(text.substr(at, piece));
  shown.text += s.finish();
  shown.stopped = s.stopped();
  return shown;
}

TEST(StopStrings, CutWhereverPiecesDo) {
  const std::string text = "abababcab stop, aba";
  for (size_t piece = 1; piece <= text.size(); ++piece)
    for (size_t at = 0; at < text.size(); ++at)
      for (size_t length = 1; at + length <= text.size(); ++length) {
        const std::string stop = text.substr(at, length);
        const size_t first = text.find(stop);
        for (const bool keep : {true, false}) {
          const Shown shown = pushed({"", "never", stop}, text, piece, keep);
          ASSERT_EQ(shown.text, text.substr(0, first + (keep ? length : 0))) << stop << " in pieces of " << piece;
          ASSERT_TRUE(shown.stopped);
        }
      }
}

TEST(StopStrings, HoldBackNoMoreThanMayBecomeOne) {
  StopStrings s({"</s>", "<end>"}, false);
  EXPECT_EQ(s.push("a <"), "a ");
  EXPECT_EQ(s.push("e"), "");
  EXPECT_EQ(s.push("x </"), "<ex ");
  EXPECT_EQ(s.push("s"), "");
  EXPECT_FALSE(s.stopped());
  EXPECT_EQ(s.finish(), "</s");
  EXPECT_EQ(s.finish(), "");
  StopStrings kept({"</s>"}, true);
  EXPECT_EQ(kept.push("a <"), "a <") << "a stop that is shown holds nothing back";
}

TEST(StopStrings, TheFirstEndCountsAndTheLongestOfThose) {
  for (const size_t piece : {1, 3, 40}) {
    EXPECT_EQ(pushed({"jumps over", "fox", "quick brown fox jumps"}, "The quick brown fox jumps", piece, false).text,
              "The quick brown ");
    EXPECT_EQ(pushed({"fox", "brown fox"}, "The quick brown fox jumps", piece, false).text, "The quick ");
  }
}

TEST(StopStrings, WithoutAnyTheTextPasses) {
  StopStrings s({""}, false);
  EXPECT_EQ(s.push("all"), "all");
  EXPECT_FALSE(s.stopped());
}

}  // namespace
}  // namespace birkhoff::test
