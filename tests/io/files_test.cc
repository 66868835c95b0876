// Atomic files and directories, locks, manifests, JSON, mapped files.
#include <sys/wait.h>

#include <cstring>

#include "core/rng.h"
#include "io/atomic_file.h"
#include "io/json_file.h"
#include "io/manifest.h"
#include "io/mapped_file.h"
#include "support/limits.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

namespace fs = std::filesystem;

TEST(AtomicFile, ReplacesTheWholeContent) {
  TempDir dir;
  io::write_file_atomic(dir / "f", "first, long");
  io::write_file_atomic(dir / "f", "2");
  EXPECT_EQ(read_file(dir / "f"), "2");
  io::write_file_atomic(dir / "f", "");
  EXPECT_EQ(read_file(dir / "f"), "");
  EXPECT_EQ(listing(dir.path()), "f") << "no temporary stays";
}

TEST(AtomicFile, AFullDiskLeavesTheOldContent) {
  TempDir dir;
  io::write_file_atomic(dir / "f", "old");
  {
    const FileSizeLimit full(1000);
    expect_error([&] { io::write_file_atomic(dir / "f", std::string(5000, 'x')); },
                 {dir / "f", "write failed", "free some space"});
  }
  EXPECT_EQ(read_file(dir / "f"), "old");
  EXPECT_EQ(listing(dir.path()), "f");
}

TEST(AtomicFile, Refusals) {
  TempDir dir;
  expect_error([&] { io::write_file_atomic(dir / "no/f", "x"); }, {"no/f", "No such file"});
  fs::create_directories(dir / "folder/full");
  expect_error([&] { io::write_file_atomic(dir / "folder", "x"); }, {"folder", "Is a directory"});
  EXPECT_EQ(listing(dir.path()), "folder");
  fs::permissions(dir.path(),
                  fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_read | fs::perms::others_exec);
  {
    const WithoutPrivileges nobody;
    if (nobody.effective())
      expect_error([&] { io::write_file_atomic(dir / "f", "x"); }, {"f: cannot be written", "Permission denied"});
  }
  fs::permissions(dir.path(), fs::perms::owner_all);
}

TEST(StagedDirectory, AppearsWholeOrNotAtAll) {
  TempDir dir;
  {
    io::StagedDirectory s(dir / "out");
    std::ofstream(s.path() + "/a") << "1";
    EXPECT_FALSE(fs::exists(dir / "out"));
  }
  EXPECT_EQ(listing(dir.path()), "") << "nothing stays of a directory that was not published";
  {
    io::StagedDirectory s(dir / "out");
    std::ofstream(s.path() + "/a") << "2";
    s.publish();
  }
  EXPECT_EQ(listing(dir.path()), "out");
  EXPECT_EQ(read_file(dir / "out/a"), "2");
  {
    io::StagedDirectory s(dir / "out");
    std::ofstream(s.path() + "/b") << "3";
    s.publish();
  }
  EXPECT_EQ(listing(dir / "out"), "b") << "publishing replaces";
  dir.file("plain", "x");
  expect_error([&] { io::StagedDirectory(dir / "plain/under"); }, {"plain/under", "cannot be created"});
}

TEST(Leftovers, OnlyThoseOfDeadProcessesGo) {
  TempDir dir;
  const std::string mine = ".c.tmp-" + std::to_string(getpid());
  const pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  const std::string dead = std::to_string(child);
  for (const std::string& name : {".a.tmp-" + dead, ".b.tmp-" + dead + "/inside", mine, std::string(".d.tmp-1"),
                                  std::string(".e.tmp-"), ".f.tmp-" + dead + "x", "g.tmp-" + dead, std::string(".h")})
    dir.file(name, "");
  io::remove_leftovers(dir.path());
  EXPECT_EQ(listing(dir.path()), ".d.tmp-1 .e.tmp- .f.tmp-" + dead + "x .h g.tmp-" + dead);
  io::remove_leftovers(dir / "absent");
}

TEST(Symlink, IsReplacedInOneStep) {
  TempDir dir;
  io::replace_symlink(dir / "latest", "one");
  io::replace_symlink(dir / "latest", "two");
  EXPECT_EQ(fs::read_symlink(dir / "latest"), "two");
  EXPECT_EQ(listing(dir.path()), "latest");
  expect_error([&] { io::replace_symlink(dir / "no/latest", "x"); }, {"no/latest", "cannot be linked"});
}

TEST(DirectoryLock, OneHolderAtATime) {
  TempDir dir;
  {
    const io::DirectoryLock held(dir.path());
    expect_error([&] { io::DirectoryLock(dir.path()); }, {dir.path(), "in use by process " + std::to_string(getpid())});
  }
  { const io::DirectoryLock again(dir.path()); }
  expect_error([&] { io::DirectoryLock(dir / "absent"); }, {"absent", "No such file"});
}

TEST(DirectoryLock, EndsWithItsProcess) {
  TempDir dir;
  int ready[2], go[2];
  ASSERT_EQ(pipe(ready), 0);
  ASSERT_EQ(pipe(go), 0);
  const pid_t child = fork();
  if (child == 0) {
    const io::DirectoryLock held(dir.path());
    char c = 'r';
    if (write(ready[1], &c, 1) != 1 || read(go[0], &c, 1) != 1) _exit(1);
    _exit(0);  // without releasing
  }
  char c;
  ASSERT_EQ(read(ready[0], &c, 1), 1);
  expect_error([&] { io::DirectoryLock(dir.path()); }, {"in use by process " + std::to_string(child)});
  ASSERT_EQ(write(go[1], &c, 1), 1);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  const io::DirectoryLock mine(dir.path());
}

TEST(Manifest, ChecksumIsThePublishedXxh64) {
  TempDir dir;
  const auto hash = [&](const std::string& content) {
    io::write_file_atomic(dir.file("x", ""), content);
    return io::file_checksum(dir.path() + "/x");
  };
  EXPECT_EQ(hash(""), 0xef46db3751d8e999u);
  EXPECT_EQ(hash("a"), 0xd24ec4f1a98c6e5bu);
  EXPECT_EQ(hash("The quick brown fox jumps over the lazy dog"), 0x0b242d361fda71bcu);
  // Longer than one read: a byte in the second piece counts.
  std::string data((size_t{1} << 20) + 100, 'x');
  const uint64_t before = hash(data);
  data.back() ^= 1;
  EXPECT_NE(hash(data), before);
}

TEST(Manifest, NoticesWhatChanged) {
  TempDir dir;
  const auto fresh = [&] {
    dir.file("a", "alpha");
    dir.file("sub/b", "beta");
    dir.file("empty", "");
    io::write_manifest(dir.path());
  };
  const auto problem = [&] {
    const auto p = io::verify_manifest(dir.path());
    return p.empty() ? std::string() : p.front();
  };
  fresh();
  EXPECT_EQ(problem(), "");
  dir.file("a", "alphA");
  EXPECT_NE(problem().find("a has another checksum"), std::string::npos) << problem();
  dir.file("a", "alph");
  EXPECT_NE(problem().find("a has 4 bytes"), std::string::npos) << problem();
  fs::remove(dir / "a");
  EXPECT_EQ(problem(), "a is missing");
  fresh();
  fs::remove(dir / "sub/b");
  EXPECT_EQ(problem(), "sub/b is missing");
  fresh();
  fs::create_directories(dir / "other");
  dir.file("manifest.json", read_file(dir / "manifest.json").substr(0, 30));
  EXPECT_NE(problem().find("manifest.json"), std::string::npos) << problem();
  dir.file("manifest.json", "{\"files\": 3}");
  EXPECT_NE(problem(), "");
  dir.file("manifest.json", "{}");
  EXPECT_NE(problem(), "");
  fs::remove(dir / "manifest.json");
  EXPECT_NE(problem().find("no manifest.json"), std::string::npos);
  fresh();
  EXPECT_EQ(problem(), "") << "a second manifest does not list the first";
}

TEST(Json, ErrorsSayWhere) {
  TempDir dir;
  const auto where = [&](const std::string& text, const std::string& place) {
    expect_error([&] { io::read_json(dir.file("f.json", text)); }, {"f.json:" + place, "not JSON"});
  };
  where("", "1:1");
  where("{\"a\": 1,}", "1:9");
  where("{\n  \"a\": tru\n}", "2:");
  where("{} x", "1:4");
  where(std::string("{\"a\": \"\xff\"}"), "1:");
  expect_error([&] { io::read_json(dir.file("f.json", "{\"a\": 1e999}")); }, {"f.json", "out of range"});
  expect_error([&] { io::read_json(dir / "absent.json"); }, {"absent.json", "No such file"});
  expect_error([&] { io::read_json(dir.path()); }, {dir.path()});
  expect_error([&] { io::read_json(dir.file("deep.json", std::string(100000, '[') + std::string(100000, ']'))); },
               {"deep", "nested deeper than 64"});
  EXPECT_EQ(io::read_json(dir.file("ok.json", std::string(60, '[') + std::string(60, ']'))).size(), 1u);
  dir.file("big.json", "");
  fs::resize_file(dir / "big.json", (8u << 20) + 1);
  expect_error([&] { io::read_json(dir / "big.json"); }, {"big.json", "8388609"});
  std::string many = "[0";
  for (int i = 0; i < 200'000; ++i) many += ",0";
  expect_error([&] { io::read_json(dir.file("many.json", many + "]")); }, {"many.json", "more than 200000"});
  {
    const std::string secret = dir.file("secret.json", "{}");
    fs::permissions(secret, fs::perms::none);
    fs::permissions(dir.path(), fs::perms::all);
    const WithoutPrivileges nobody;
    if (nobody.effective()) expect_error([&] { io::read_json(secret); }, {"secret.json", "Permission denied"});
  }
}

TEST(Json, RoundTrip) {
  TempDir dir;
  const nlohmann::json j = {{"a", 1},
                            {"b", {1.5, nullptr, true}},
                            {"text", "\xc3\xa9\n\""},
                            {"tiny", 4.9406564584124654e-324},
                            {"third", 1.0 / 3}};
  io::write_json(dir / "f", j);
  EXPECT_EQ(io::read_json(dir / "f"), j);
  io::write_json(dir / "f", std::string("not utf8 \xff"));  // replaced, not thrown
  EXPECT_TRUE(io::read_json(dir / "f").is_string());
}

TEST(MappedFile, AnyRegularFile) {
  TempDir dir;
  const std::string content("bin\0ary\xff", 8);
  const io::MappedFile f(dir.file("f", content));
  EXPECT_EQ(std::memcmp(f.bytes().data(), content.data(), content.size()), 0);
  EXPECT_EQ(f.bytes().size(), 8u);
  EXPECT_TRUE(io::MappedFile(dir.file("empty", "")).bytes().empty());
  expect_error([&] { io::MappedFile(dir / "absent"); }, {"absent", "No such file"});
  expect_error([&] { io::MappedFile(dir.path()); }, {dir.path(), "is a directory"});
}

}  // namespace
}  // namespace birkhoff::test
