// Pages of caches run out, are shared and are given back.
#include <algorithm>

#include "core/error.h"
#include "infer/batch_models.h"
#include "infer/prefix_cache.h"
#include "infer/session.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using infer::BatchPiece;
using infer::Engine;
using infer::Session;
using infer::TokenRole;

TEST(CacheBudget, RefusesAndEvicts) {
  TempDir dir;
  write_model(dir.path(), batch_config("gqa"));
  infer::EngineOptions options;
  const int64_t page = Engine(dir.path(), options).caches().page_bytes();
  options.caches.bytes = 3 * page + 10;
  options.caches.prefix_bytes = options.caches.bytes;
  const Engine engine(dir.path(), options);
  const auto ids = random_ids(200, engine.model().config.vocab_size);
  {
    Session session(engine, 250);
    session.feed(std::span(ids).first(130));
    EXPECT_EQ(engine.caches().used(), 3 * page);
    expect_error([&] { session.feed(std::span(ids).last(70)); }, {"MiB that caches may take"}, ExitCode::failed);
    EXPECT_EQ(session.length(), 130);
    session.feed(std::span(ids).last(60));  // goes on in what it has
  }
  EXPECT_EQ(engine.caches().used(), 2 * page) << "whole pages of the prompt stay";
  Session session(engine, 250);
  const std::vector<int32_t> others(ids.rbegin(), ids.rbegin() + 190);
  session.feed(others);
  EXPECT_EQ(engine.caches().used(), 3 * page) << "and go for another text";
}

// A pass for which there is no room leaves its sessions as they were, also those that had theirs.
TEST(CacheBudget, AFailedPassLeavesNothing) {
  TempDir dir;
  write_model(dir.path(), batch_config("gqa"));
  infer::EngineOptions options;
  const int64_t page = Engine(dir.path(), options).caches().page_bytes();
  options.caches.bytes = 5 * page + 10;
  const Engine engine(dir.path(), options);
  const auto ids = random_ids(250, engine.model().config.vocab_size);
  const auto part = [&](size_t first, size_t n) { return std::span(ids).subspan(first, n); };
  Session a(engine, 250), b(engine, 250);
  a.feed(part(0, 64)), b.feed(part(0, 120));
  const BatchPiece pieces[] = {{&a, part(64, 60), TokenRole::prompt, 1},
                               {&b, part(120, 190 - 60), TokenRole::prompt, 1}};
  EXPECT_THROW(infer::run_batch(engine, pieces, [](size_t, int64_t, std::span<const float>) {}), Error);
  EXPECT_EQ(engine.caches().used(), 3 * page);
  Session fork = a.fork();
  const auto logits = a.feed(part(64, 5));
  const std::vector<float> want(logits.begin(), logits.end());
  fork.feed(part(100, 9));
  ASSERT_TRUE(a.rewind(64));
  const auto again = a.feed(part(64, 5));
  EXPECT_EQ(std::vector<float>(again.begin(), again.end()), want);
  EXPECT_THROW(a.feed(part(0, 180)), Error);
  EXPECT_EQ(a.length(), 69);
}

// What is read through copies was planned for.
TEST(CacheBudget, OfALongText) {
  TempDir dir;
  model::ModelConfig c = batch_config("gqa");
  c.max_position_embeddings = 20000;
  write_model(dir.path(), c);
  for (const ops::CacheType type : {ops::CacheType::int8, ops::CacheType::f32}) {
    infer::EngineOptions options;
    options.compute = "bf16";
    options.caches.type = type;
    options.max_positions = 20000;
    const Engine engine(dir.path(), options);
    Session session(engine, 20000);
    const auto ids = random_ids(256, c.vocab_size);
    for (int i = 0; i < (sanitized() ? 10 : 60); ++i) session.feed(ids);
    EXPECT_GT(session.length(), 2000);
  }
}

TEST(PrefixCache, TheLeastRecentlyUsedGoes) {
  TempDir dir;
  write_model(dir.path(), batch_config("gqa"));
  const Engine engine(dir.path(), {});
  model::CachePool pool(engine.model(), ops::CacheType::bf16, int64_t{1} << 26);
  const auto ids = random_ids(4 * 64, 50);
  const auto at = [&](size_t page) { return std::span(ids).subspan(64 * page, 64); };
  const auto joined = [](std::span<const int32_t> a, std::span<const int32_t> b) {
    std::vector<int32_t> v(a.begin(), a.end());
    v.insert(v.end(), b.begin(), b.end());
    return v;
  };
  {
    infer::PrefixCache cache(pool, 3 * pool.page_bytes());
    const auto insert = [&](std::span<const int32_t> text) {
      std::vector<int32_t> pages = cache.find({}, text);  // as a session does, which reads the rest
      for (const int32_t page : pages) pool.share_page(page);
      while (pages.size() < text.size() / 64) pages.push_back(pool.take_page());
      cache.insert({}, text, pages);
      for (const int32_t page : pages) pool.release_page(page);
      return pages;
    };
    const auto first = insert(joined(at(0), at(1)));
    const auto second = insert(joined(at(0), at(2)));
    EXPECT_EQ(cache.bytes(), 3 * pool.page_bytes());
    EXPECT_EQ(cache.find({}, joined(at(0), at(2))), (std::vector<int32_t>{first[0], second[1]})) << "one beginning";
    EXPECT_EQ(cache.find({}, joined(at(0), at(1)).size() ? joined(at(0), at(1)) : ids), first);
    insert(at(3));
    EXPECT_EQ(cache.find({}, joined(at(0), at(2))), std::vector<int32_t>{first[0]}) << "its second page was older";
    EXPECT_EQ(cache.find({}, joined(at(0), at(1))), first);
    EXPECT_EQ(cache.find(1, at(3)), std::vector<int32_t>{});
    EXPECT_EQ(pool.used(), 3 * pool.page_bytes());
    // Who read the same at the same time has pages of its own: nothing hangs below another's.
    const std::vector<int32_t> own = {pool.take_page(), pool.take_page()};
    cache.insert({}, joined(at(0), at(3)), own);
    EXPECT_EQ(cache.find({}, joined(at(0), at(3))), std::vector<int32_t>{first[0]});
    for (const int32_t page : own) pool.release_page(page);
  }
  for (const size_t kept : {1, 2}) {  // whichever was inserted first
    infer::PrefixCache cache(pool, 3 * pool.page_bytes());
    const auto take = [&](std::span<const int32_t> text) {
      std::vector<int32_t> pages = cache.find({}, text);
      for (const int32_t page : pages) pool.share_page(page);
      while (pages.size() < text.size() / 64) pages.push_back(pool.take_page());
      cache.insert({}, text, pages);
      for (const int32_t page : pages) pool.release_page(page);
    };
    take(joined(at(0), at(1)));
    take(joined(at(0), at(2)));
    cache.find({}, joined(at(0), at(kept)));
    take(at(3));
    EXPECT_EQ(cache.find({}, joined(at(0), at(kept))).size(), 2u) << kept;
    EXPECT_EQ(cache.find({}, at(3)).size(), 1u) << "the newest stays";
  }
  EXPECT_EQ(pool.used(), 0);
}

}  // namespace
}  // namespace birkhoff::test
