#include "data/corpus.h"

#include <map>
#include <set>

#include "core/rng.h"
#include "data/documents.h"
#include "support/limits.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using data::Batch;
using data::Corpus;

bool same(const Batch& a, const Batch& b) {
  return a.rows == b.rows && a.seq_len == b.seq_len && a.ids == b.ids && a.labels == b.labels &&
         a.position == b.position && a.first_key == b.first_key && a.segment_start == b.segment_start &&
         a.sequence_start == b.sequence_start;
}

std::string numbered(size_t n, size_t from = 0) {  // bytes that tell where they stand, modulo 251
  std::string s(n, ' ');
  for (size_t i = 0; i < n; ++i) s[i] = static_cast<char>((from + i) % 251);
  return s;
}

TEST(Corpus, WindowsArePureFunctionsOfSeedStepAndRow) {
  TempDir dir;
  const std::string path = dir.file("text", numbered(5000));
  const Corpus a({path}, {}, 32, 7), b({path}, {}, 32, 7), other({path}, {}, 32, 8);
  for (int64_t step : {0, 1, 1000000}) {
    const Batch whole = a.training_batch(step, 8, 0, 8);
    EXPECT_TRUE(same(whole, b.training_batch(step, 8, 0, 8)));
    EXPECT_FALSE(same(whole, other.training_batch(step, 8, 0, 8)));
    EXPECT_FALSE(same(whole, a.training_batch(step + 1, 8, 0, 8)));
    std::vector<int32_t> ids;  // cut into parts: the same rows
    for (int64_t first = 0; first < 8; first += 2) {
      const Batch part = a.training_batch(step, 8, first, 2);
      EXPECT_EQ(part.rows, 2);
      EXPECT_EQ(part.sequence_start, (std::vector<int32_t>{0, 32}));
      ids.insert(ids.end(), part.ids.begin(), part.ids.end());
    }
    EXPECT_EQ(ids, whole.ids);
  }
}

TEST(Corpus, RowsAreWindowsOfTheTextAndTheirNextBytes) {
  TempDir dir;
  const Corpus c({dir.file("text", numbered(4000))}, {}, 16, 1);
  const Batch b = c.training_batch(3, 6, 0, 6);
  EXPECT_EQ(b.rows, 6);
  EXPECT_EQ(b.seq_len, 16);
  ASSERT_EQ(b.ids.size(), 96u);
  for (int32_t r = 0; r < 6; ++r)
    for (int32_t i = 0; i < 16; ++i) {
      const auto t = static_cast<size_t>(r * 16 + i);
      EXPECT_EQ(b.labels[t], (b.ids[t] + 1) % 251);
      EXPECT_EQ(b.ids[t], (b.ids[static_cast<size_t>(r * 16)] + i) % 251);
      EXPECT_EQ(b.position[t], i);
      EXPECT_EQ(b.first_key[t], r * 16);
    }
  EXPECT_EQ(b.segment_start, (std::vector<int32_t>{0, 16, 32, 48, 64, 80}));
  EXPECT_EQ(b.sequence_start, b.segment_start);
}

TEST(Corpus, TheLastTwentiethValidatesAndIsNeverTrainedOn) {
  TempDir dir;
  std::string text(2000, 'a');
  std::fill(text.end() - 100, text.end(), 'V');
  const Corpus c({dir.file("text", text)}, {}, 16, 1);
  EXPECT_EQ(c.training_bytes(), 1900);
  for (int64_t step = 0; step < 300; ++step) {
    const Batch b = c.training_batch(step, 8, 0, 8);
    for (size_t t = 0; t < b.ids.size(); ++t) ASSERT_TRUE(b.ids[t] == 'a' && b.labels[t] == 'a') << "step " << step;
  }
  EXPECT_EQ(c.validation_windows(), 6);
  size_t tokens = 0;
  for (const Batch& b : c.validation_batches(4, 0)) {
    for (int32_t id : b.ids) EXPECT_EQ(id, 'V');
    tokens += b.ids.size();
  }
  EXPECT_EQ(tokens, 96u);
}

TEST(Corpus, EveryTrainingPositionCanBeDrawn) {
  TempDir dir;
  const Corpus c({dir.file("text", numbered(60))}, {}, 8, 1);  // 51 to train on: windows start at 0..42
  std::set<int32_t> first;
  for (int64_t step = 0; step < 2000; ++step) first.insert(c.training_batch(step, 1, 0, 1).ids[0]);
  EXPECT_EQ(first.size(), 43u);
  EXPECT_EQ(*first.rbegin(), 42);
}

TEST(Corpus, ValidationIsConsecutiveWindows) {
  TempDir dir;
  const std::string train = dir.file("train", numbered(500)), val = dir.file("val", numbered(101));
  const Corpus c({train}, {val}, 10, 1);
  EXPECT_EQ(c.training_bytes(), 500) << "nothing is held back when validation data is given";
  EXPECT_EQ(c.validation_windows(), 10);
  const auto batches = c.validation_batches(4, 0);
  ASSERT_EQ(batches.size(), 3u);
  EXPECT_EQ(batches[2].rows, 2);
  int32_t next = 0;
  for (const Batch& b : batches)
    for (size_t t = 0; t < b.ids.size(); ++t) {
      EXPECT_EQ(b.ids[t], next++);
      EXPECT_EQ(b.labels[t], next);
    }
  EXPECT_EQ(next, 100);
  EXPECT_EQ(Corpus({}, {val}, 10, 1).validation_windows(), 10);
  EXPECT_EQ(Corpus({}, {dir.file("short", numbered(100))}, 10, 1).validation_windows(), 9)
      << "the last window needs the byte after it";
}

TEST(Corpus, ASampleOfValidationIsSpreadAndFixed) {
  TempDir dir;
  const Corpus c({dir.file("train", numbered(500))}, {dir.file("val", numbered(201))}, 10, 1);
  const auto starts = [&](int64_t limit) {
    std::vector<int32_t> s;
    for (const Batch& b : c.validation_batches(3, limit))
      for (int32_t at : b.sequence_start) s.push_back(b.ids[static_cast<size_t>(at)]);
    return s;
  };
  EXPECT_EQ(starts(4), (std::vector<int32_t>{0, 50, 100, 150}));
  EXPECT_EQ(starts(4), starts(4));
  EXPECT_EQ(starts(100).size(), 20u);
  EXPECT_EQ(starts(1), std::vector<int32_t>{0});
  EXPECT_EQ(starts(7).size(), 7u);
}

TEST(Corpus, WeightsSetTheShares) {
  TempDir dir;
  const std::string a = dir.file("a", std::string(1000, 'a')), b = dir.file("b", std::string(3000, 'b')),
                    c = dir.file("c", std::string(1000, 'c'));
  const Corpus corpus({a + "@3", b, c + "@0.5"}, {}, 8, 5);
  std::map<int32_t, double> share;
  constexpr int kRows = 20000;
  for (int64_t step = 0; step < kRows / 10; ++step)
    for (const Batch batch = corpus.training_batch(step, 10, 0, 10); int32_t at : batch.sequence_start)
      share[batch.ids[static_cast<size_t>(at)]] += 1.0 / kRows;
  // 5 standard deviations of a share of 20000 draws are below 0.018.
  EXPECT_NEAR(share['a'], 3 / 4.5, 0.018);
  EXPECT_NEAR(share['b'], 1 / 4.5, 0.018);
  EXPECT_NEAR(share['c'], 0.5 / 4.5, 0.018);
}

TEST(Corpus, WeightsAreDecimalNumbers) {
  TempDir dir;
  const std::string text = dir.file("text", "x");
  EXPECT_EQ(data::split_weight(text + "@2.5e-1").second, 0.25);
  for (const char* weight : {"", "0", "-1", "0x10", "inf", "nan", "1e999", "1 ", "heavy"})
    expect_error([&] { data::split_weight(text + "@" + weight); }, {"the weight \"" + std::string(weight) + "\""});
}

TEST(Corpus, AnAtSignMayBelongToTheName) {
  TempDir dir;
  const std::string path = dir.file("me@2", std::string(1000, 'x'));
  EXPECT_EQ(Corpus({path}, {}, 8, 1).training_bytes(), 950);
  EXPECT_EQ(Corpus({path + "@0.25"}, {}, 8, 1).training_bytes(), 950);
  const std::string plain = dir.file("plain", std::string(1000, 'x'));
  for (const char* weight : {"", "0", "-1", "x", "nan", "inf", "1x"})
    expect_error([&] { Corpus({plain + "@" + weight}, {}, 8, 1); }, {plain, "no positive number"});
}

TEST(Corpus, DocumentsOfAFolderAreMasked) {
  TempDir dir;
  dir.file("docs/c", std::string(400, 'c'));
  dir.file("docs/a", "aaaaa");
  dir.file("docs/b", "bbb");
  dir.file("docs/empty", "");
  dir.file("docs/sub/ignored", std::string(50, 'z'));
  const Corpus c({}, {dir / "docs"}, 12, 1);
  const Batch b = c.validation_batches(1, 1).front();
  EXPECT_EQ(b.ids, (std::vector<int32_t>{'a', 'a', 'a', 'a', 'a', 'b', 'b', 'b', 'c', 'c', 'c', 'c'}))
      << "in name order";
  const int32_t no = kIgnoreLabel;
  EXPECT_EQ(b.labels, (std::vector<int32_t>{'a', 'a', 'a', 'a', no, 'b', 'b', no, 'c', 'c', 'c', 'c'}));
  EXPECT_EQ(b.position, (std::vector<int32_t>{0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3}));
  EXPECT_EQ(b.first_key, (std::vector<int32_t>{0, 0, 0, 0, 0, 5, 5, 5, 8, 8, 8, 8}));
  EXPECT_EQ(b.segment_start, (std::vector<int32_t>{0, 5, 8}));
  EXPECT_EQ(b.sequence_start, std::vector<int32_t>{0});
}

// A window that starts inside a document counts positions from the start of the row, which is all the model sees.
TEST(Corpus, RandomWindowsOfManyDocumentsAreConsistent) {
  TempDir dir;
  std::string all;
  std::vector<size_t> document;
  for (int d = 0; d < 40; ++d) {
    const size_t n = 1 + Rng(2).bits(static_cast<uint64_t>(d)) % 30;
    const std::string text = numbered(n, all.size());
    char name[16];
    std::snprintf(name, sizeof name, "docs/%03d", d);
    dir.file(name, text);
    all += text;
    document.insert(document.end(), n, static_cast<size_t>(d));
  }
  const Corpus c({}, {dir / "docs"}, 20, 1);
  size_t at = 0;
  for (const Batch& b : c.validation_batches(3, 0)) {
    for (size_t t = 0; t < b.ids.size(); ++t, ++at) {
      EXPECT_EQ(b.ids[t], static_cast<unsigned char>(all[at]));
      EXPECT_EQ(b.labels[t], document[at] == document[at + 1] ? static_cast<unsigned char>(all[at + 1]) : kIgnoreLabel);
      const size_t row = t / 20 * 20;
      size_t first = t;
      while (first > row && document[at - (t - first) - 1] == document[at]) --first;
      EXPECT_EQ(b.first_key[t], static_cast<int32_t>(first));
      EXPECT_EQ(b.position[t], static_cast<int32_t>(t - first));
      const bool starts = std::count(b.segment_start.begin(), b.segment_start.end(), static_cast<int32_t>(t)) == 1;
      EXPECT_EQ(starts, first == t);
    }
  }
}

TEST(Corpus, AnyBytesWillDo) {
  TempDir dir;
  std::string bytes;
  for (int i = 0; i < 2000; ++i) bytes.push_back(static_cast<char>(Rng(1).bits(static_cast<uint64_t>(i))));
  const Corpus c({dir.file("binary", bytes)}, {}, 64, 1);
  for (int32_t id : c.training_batch(0, 8, 0, 8).ids) EXPECT_TRUE(id >= 0 && id < 256);
}

TEST(Documents, LinesBeginBehindAByteOrderMark) {
  TempDir dir;
  std::string seen;
  const auto read = [&](const std::string& content) {
    seen.clear();
    data::for_each_line(dir.file("f.jsonl", content), [&](std::string_view line, size_t number) {
      seen += std::to_string(number) + "=" + std::string(line) + " ";
      return line != "end";
    });
    return seen;
  };
  EXPECT_EQ(read("\xEF\xBB\xBF"
                 "a\n\n \t\nb"),
            "1=a 4=b ");
  EXPECT_EQ(read("a\nend\nb\n"), "1=a 2=end ");
  EXPECT_EQ(read(""), "");
  EXPECT_EQ(read("\xEF\xBB\xBF"), "");
}

TEST(Documents, FoldersThatAreNotReadAreKnown) {
  TempDir dir;
  const std::string one = dir.file("texts/one", "1");
  dir.file("texts/below/two", "2");
  dir.file("flat/.git/three", "3");
  EXPECT_EQ(data::document_files(dir / "texts"), std::vector<std::string>{one});
  const auto notes = data::unread_folders({dir / "texts@0.5", one, dir / "flat"});
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_EQ(notes[0], dir / "texts" + ": its files are read, not those of the folders in it: below");
}

TEST(Corpus, Refuses) {
  TempDir dir;
  const auto refused = [&](const std::string& path, const std::vector<std::string>& parts) {
    expect_error([&] { Corpus({path}, {}, 16, 1); }, parts);
  };
  refused(dir / "absent", {"absent", "no such file"});
  refused(dir.file("empty", ""), {"empty", "is empty"});
  std::filesystem::create_directories(dir / "folder");
  refused(dir / "folder", {"folder", "no files"});
  for (const char* below : {"a/text", "b/text", "c/text", "d/text", ".hidden/text"})
    dir.file(std::string("folder/") + below, "x");
  refused(dir / "folder", {"folder", "no files, only folders: a, b, c and 1 more", "give the path of each"});
  dir.file("folder/empty", "");
  refused(dir / "folder", {"folder", "is empty"});
  refused(dir.file("short", std::string(33, 'x')), {"short", "16 bytes to train on", "seq_len 16", "17"});
  EXPECT_EQ(Corpus({dir.file("just enough", std::string(34, 'x'))}, {}, 16, 1).training_batch(5, 2, 0, 2).rows, 2);
  const std::string good = dir.file("good", std::string(500, 'x'));
  expect_error([&] { Corpus({good}, {dir.file("tiny", "abc")}, 16, 1); }, {"tiny", "3 bytes to validate", "17"});
  std::filesystem::permissions(dir.path(), std::filesystem::perms::all);
  std::filesystem::permissions(good, std::filesystem::perms::none);
  std::filesystem::permissions(dir / "folder", std::filesystem::perms::none);
  const WithoutPrivileges nobody;
  if (!nobody.effective()) GTEST_SKIP() << "permissions cannot be refused here";
  refused(good, {"good", "Permission denied"});
  refused(dir / "folder", {"folder", "Permission denied"});
}

}  // namespace
}  // namespace birkhoff::test
