// Whatever a user's path may lead to: each kind is told apart, none makes the program wait or throws anything but
// Error.
#include "io/user_files.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "io/atomic_file.h"
#include "io/json_file.h"
#include "io/mapped_file.h"
#include "support/limits.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

namespace fs = std::filesystem;
constexpr size_t kMost = 1000;

struct BadPath {
  std::string path, reason;
};

// One of each kind that no reader of files takes.
std::vector<BadPath> bad_paths(const TempDir& dir) {
  fs::create_symlink(dir / "cycle", dir / "cycle");
  EXPECT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  return {{dir / "absent", "No such file"},
          {dir.path(), "is a directory"},
          {dir / "cycle", "Too many levels of symbolic links"},
          {dir / std::string(300, 'x'), "File name too long"},
          {dir / "fifo", "is not a regular file"},
          {"/dev/zero", "is not a regular file"},
          {"/dev/null", "is not a regular file"}};
}

TEST(UserFiles, EveryReaderRefusesWhatIsNoFile) {
  TempDir dir;
  for (const auto& [path, reason] : bad_paths(dir)) {
    SCOPED_TRACE(path);
    expect_error([&, p = path] { io::read_file(p, kMost); }, {"[file] " + path, reason});
    expect_error([&, p = path] { io::MappedFile{p}; }, {"[file] " + path, reason});
    expect_error([&, p = path] { io::read_json(p); }, {"[file] " + path, reason});
  }
}

TEST(UserFiles, FilesAreReadUpToTheirLimit) {
  TempDir dir;
  const std::string path = dir.file("f", std::string(kMost, 'a'));
  EXPECT_EQ(io::read_file(path, kMost).size(), kMost);
  EXPECT_EQ(io::read_stream(path, kMost).size(), kMost);
  expect_error([&] { io::read_file(path, kMost - 1); }, {path, "1000 bytes, at most 999"});
  expect_error([&] { io::read_stream(path, kMost - 1); }, {path, "more than 999 bytes"});
  EXPECT_EQ(io::read_file(dir.file("empty", ""), kMost), "");
}

TEST(UserFiles, CopiesAreWholeAndWritable) {
  TempDir dir;
  const std::string from = dir.file("from", "content");
  fs::permissions(from, fs::perms::owner_read);
  io::copy_file(from, dir / "to");
  EXPECT_EQ(io::read_file(dir / "to", kMost), "content");
  EXPECT_EQ(io::file_size(dir / "to"), 7u);
  EXPECT_NE(fs::status(dir / "to").permissions() & fs::perms::owner_write, fs::perms::none);
  for (const auto& [path, reason] : bad_paths(dir))
    expect_error([&, p = path] { io::copy_file(p, dir / "to"); }, {"[file] " + path, reason});
}

TEST(UserFiles, ANameIsTakenByALinkThatLeadsNowhere) {
  TempDir dir;
  fs::create_symlink(dir / "absent", dir / "link");
  EXPECT_TRUE(io::is_taken(dir / "link") && io::is_taken(dir.path()));
  EXPECT_FALSE(io::is_taken(dir / "absent"));
  EXPECT_FALSE(io::exists(dir / "link"));
}

TEST(UserFiles, KindsOfPaths) {
  TempDir dir;
  const std::string file = dir.file("f", "x");
  EXPECT_TRUE(io::is_file(file));
  EXPECT_TRUE(io::is_directory(dir.path()));
  EXPECT_EQ(io::path_kind("/dev/null"), io::PathKind::other);
  EXPECT_FALSE(io::exists(dir / "absent"));
  EXPECT_FALSE(io::exists(file + "/below"));
  fs::create_symlink("nowhere", dir / "dangling");
  EXPECT_FALSE(io::exists(dir / "dangling"));
  fs::create_symlink("f", dir / "link");
  EXPECT_TRUE(io::is_file(dir / "link"));
  fs::create_symlink(dir / "cycle", dir / "cycle");
  expect_error([&] { io::exists(dir / "cycle"); }, {"[file] " + (dir / "cycle"), "Too many levels"});
  expect_error([&] { io::exists(dir / std::string(300, 'x')); }, {"File name too long"});
}

TEST(UserFiles, AFolderThatMayNotBeSearched) {
  TempDir dir;
  fs::permissions(dir.path(), fs::perms::all);
  dir.file("closed/f", "x");
  fs::permissions(dir / "closed", fs::perms::none);
  {
    const WithoutPrivileges nobody;
    if (nobody.effective()) {
      expect_error([&] { io::exists(dir / "closed/f"); }, {"[file] " + (dir / "closed/f"), "Permission denied"});
      expect_error([&] { io::list_directory(dir / "closed"); }, {"[file] " + (dir / "closed"), "Permission denied"});
      expect_error([&] { io::create_directories(dir / "closed/new"); }, {"Permission denied"});
    }
  }
  fs::permissions(dir / "closed", fs::perms::all);
  EXPECT_EQ(io::list_directory(dir / "closed"), std::vector<std::string>{"f"});
}

TEST(Streams, DevicesArePartOfThem) {
  EXPECT_EQ(io::read_stream("/dev/null", kMost), "");
  expect_error([&] { io::read_stream("/dev/zero", kMost); }, {"/dev/zero", "more than 1000 bytes"});
  TempDir dir;
  expect_error([&] { io::read_stream(dir.path(), kMost); }, {dir.path(), "is a directory"});
}

TEST(Streams, APipeIsReadToItsEndHoweverSlow) {
  TempDir dir;
  const std::string path = dir / "fifo";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  std::thread writer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));  // the reader is there first
    const int fd = ::open(path.c_str(), O_WRONLY);
    for (const char* part : {"one ", "two"}) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      EXPECT_EQ(::write(fd, part, strlen(part)), static_cast<ssize_t>(strlen(part)));
    }
    ::close(fd);
  });
  EXPECT_EQ(io::read_stream(path, kMost), "one two");
  writer.join();
}

TEST(Outputs, LinksStayAndTheirTargetsAreReplaced) {
  TempDir dir;
  dir.file("sub/target", "old");
  fs::permissions(dir / "sub/target", fs::perms::owner_read | fs::perms::owner_write);
  fs::create_symlink("sub/target", dir / "link");
  fs::create_symlink("link", dir / "link2");
  io::write_file_atomic(dir / "link2", "new");
  EXPECT_TRUE(fs::is_symlink(dir / "link2") && fs::is_symlink(dir / "link"));
  EXPECT_EQ(read_file(dir / "sub/target"), "new");
  EXPECT_EQ(fs::status(dir / "sub/target").permissions(), fs::perms::owner_read | fs::perms::owner_write);
  fs::create_symlink("sub/later", dir / "dangling");
  io::write_file_atomic(dir / "dangling", "made");
  EXPECT_TRUE(fs::is_symlink(dir / "dangling"));
  EXPECT_EQ(read_file(dir / "sub/later"), "made");
  EXPECT_EQ(listing(dir / "sub"), "later target");
}

TEST(Outputs, TheModeOfWhatIsReplacedIsKeptWhateverTheUmask) {
  TempDir dir;
  const auto shared = fs::perms::owner_read | fs::perms::owner_write | fs::perms::group_read | fs::perms::group_write;
  const std::string path = dir.file("f", "old");
  fs::permissions(path, shared);
  const mode_t before = umask(022);
  io::write_file_atomic(path, "new");
  io::write_file_atomic(dir / "fresh", "new");
  umask(before);
  EXPECT_EQ(fs::status(path).permissions(), shared);
  EXPECT_EQ(fs::status(dir / "fresh").permissions() & fs::perms::group_write, fs::perms::none);
}

TEST(Streams, StandardInputIsReadFromWhereItStands) {
  TempDir dir;
  const std::string path = dir.file("f", "first line\nsecond");
  const io::Descriptor before(::dup(STDIN_FILENO)), file(::open(path.c_str(), O_RDONLY)),
      folder(::open(dir.path().c_str(), O_RDONLY));
  ASSERT_EQ(::lseek(file.get(), 11, SEEK_SET), 11);
  ::dup2(file.get(), STDIN_FILENO);
  EXPECT_EQ(io::read_standard_input(kMost), "second");
  ::lseek(file.get(), 0, SEEK_SET);
  expect_error([] { io::read_standard_input(5); }, {"standard input", "more than 5 bytes"});
  int both[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, both), 0);
  EXPECT_EQ(::write(both[1], "socket", 6), 6);
  ::close(both[1]);
  ::dup2(both[0], STDIN_FILENO);
  ::close(both[0]);
  EXPECT_EQ(io::read_standard_input(kMost), "socket");
  ::dup2(folder.get(), STDIN_FILENO);
  expect_error([] { io::read_standard_input(kMost); }, {"[file] standard input: Is a directory"});
  ::dup2(before.get(), STDIN_FILENO);
}

TEST(Outputs, DevicesAndPipesAreWrittenInPlace) {
  TempDir dir;
  fs::create_symlink("/dev/full", dir / "full");
  expect_error([&] { io::write_file_atomic(dir / "full", "x"); }, {dir / "full", "write failed", "No space left"});
  io::write_file_atomic("/dev/null", "x");
  EXPECT_TRUE(fs::is_character_file("/dev/full") && fs::is_character_file("/dev/null"));
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  expect_error([&] { io::write_file_atomic(dir / "fifo", "x"); }, {dir / "fifo", "is a pipe that nobody reads"});
  const int reader = ::open((dir / "fifo").c_str(), O_RDONLY | O_NONBLOCK);
  io::write_file_atomic(dir / "fifo", "through");
  char text[16] = {};
  EXPECT_EQ(::read(reader, text, sizeof text), 7);
  ::close(reader);
  EXPECT_TRUE(fs::is_fifo(dir / "fifo"));
}

TEST(Outputs, WhatCannotBeOne) {
  TempDir dir;
  fs::create_symlink(dir / "cycle", dir / "cycle");
  expect_error([&] { io::write_file_atomic(dir / "cycle", "x"); }, {"[file] " + (dir / "cycle"), "Too many levels"});
  expect_error([&] { io::write_file_atomic(dir / std::string(300, 'x'), "x"); }, {"File name too long"});
  expect_error([&] { io::write_file_atomic(dir.path(), "x"); }, {dir.path(), "Is a directory"});
  const std::string in = dir.file("in", "x");
  fs::create_hard_link(in, dir / "other");
  fs::create_symlink("in", dir / "link");
  for (const std::string out : {"in", "other", "link"})
    expect_error(
        [&] {
          io::check_not_an_input(dir / out, {dir / "absent", in});
        },
        {dir / out, "is read"}, ExitCode::usage);
  io::check_not_an_input(dir / "new", {in, dir / "new"});
  io::check_not_an_input("/dev/null", {"/dev/null"});
  dir.file("folder/text", "x");
  for (const std::string out : {"folder", "folder/text"})
    expect_error([&] { io::check_not_an_input(dir / out, {dir / "folder"}); }, {dir / out, "is read"}, ExitCode::usage);
  for (const std::string out : {"in", "folder/new", "folder/text/below"})
    io::check_not_an_input(dir / out, {dir / "folder"});
}

TEST(Outputs, LinesAreAdded) {
  TempDir dir;
  const std::string lines = dir / "lines";
  fs::create_symlink("lines", dir / "link");
  io::append_line(dir / "link", "one");
  io::append_line(lines, "two");
  EXPECT_EQ(read_file(lines), "one\ntwo\n");
  io::append_line(dir.file("open", "torn"), "whole");
  EXPECT_EQ(read_file(dir / "open"), "torn\nwhole\n");
  expect_error([&] { io::append_line(dir.path(), "x"); }, {dir.path(), "Is a directory"});
  expect_error([&] { io::append_line(dir / "absent/f", "x"); }, {dir / "absent/f", "No such file"});
  expect_error([&] { io::append_line("/dev/full", "x"); }, {"/dev/full", "No space left"});
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  expect_error([&] { io::append_line(dir / "fifo", "x"); }, {dir / "fifo", "is a pipe that nobody reads"});
  const FileSizeLimit disk(4);
  expect_error([&] { io::append_line(dir / "full", "12345678"); }, {dir / "full", "File too large"});
}

TEST(MappedFiles, ThoseWrittenToAreKnown) {
  TempDir dir;
  const std::string kept = dir.file("kept", "abc"), written = dir.file("written", "abc"),
                    swapped = dir.file("s", "abc");
  const auto changed = [] { return io::changed_mapped_files(); };
  {
    const io::MappedFile a(kept), b(written), c(swapped);
    io::write_file_atomic(swapped, "other");
    EXPECT_EQ(changed(), std::vector<std::string>{});
    EXPECT_EQ(io::mapped_files().size(), 3u);
    std::ofstream(written, std::ios::app) << "d";
    EXPECT_EQ(changed(), std::vector<std::string>{written});
    bool shorter = true;
    EXPECT_STREQ(io::mapped_file_at(a.bytes().data() + 2, shorter), kept.c_str());
    EXPECT_FALSE(shorter);
    fs::resize_file(kept, 1);
    EXPECT_STREQ(io::mapped_file_at(a.bytes().data() + 2, shorter), kept.c_str());
    EXPECT_TRUE(shorter);
    EXPECT_EQ(io::mapped_file_at(a.bytes().data() + 3, shorter), nullptr);
  }
  EXPECT_EQ(changed(), (std::vector<std::string>{kept, written})) << "remembered when the mapping is gone";
  EXPECT_TRUE(io::mapped_files().empty());
}

}  // namespace
}  // namespace birkhoff::test
