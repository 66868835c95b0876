// Prediction modules behind caches: their rows are those of the training form, bit for bit, whatever the pieces.
#include <gtest/gtest.h>

#include <algorithm>

#include "model/pass.h"
#include "support/model_case.h"
#include "support/small_model.h"

namespace birkhoff::test {
namespace {

using layers::MlaForm;
using Rows = std::vector<std::vector<float>>;

std::vector<float> values_of(CMat m) {
  Owned wide(m.rows, m.cols);
  for (int64_t i = 0; i < m.rows; ++i)
    for (int64_t c = 0; c < m.cols; ++c)
      static_cast<Mat>(wide).f32(i)[c] = m.dtype == f32_t ? m.f32(i)[c] : to_float(m.b16(i)[c]);
  const Mat all = wide;
  return {all.f32(), all.f32() + all.size()};
}

// Hidden states of every module over a whole text, as training computes them.
Rows in_training(const Exec& exec, const model::Model& m, std::span<const int32_t> ids) {
  Arena kept(size_t{64} << 20), scratch(size_t{64} << 20);
  const model::SequenceTokens tokens(static_cast<int64_t>(ids.size()));
  model::Tape tape = model::reserve_tape(kept, m, static_cast<int64_t>(ids.size()), model::Tape::Keep::for_backward);
  const std::vector<int32_t> labels(ids.size(), 0);
  tape.mtp = model::reserve_mtp(kept, m, model::mtp_rows(ids, labels, tokens.context(), m.weights.mtp.size()),
                                model::Recompute::none);
  const layers::TokenContext ctx = tokens.context();
  model::forward({exec, m, ctx, scratch}, ids, tape);
  model::forward_mtp({exec, m, ctx, scratch}, ids, model::mtp_source(m, tape, tape.hidden), tape.mtp);
  Rows all;
  for (const model::MtpTape& module : tape.mtp) all.push_back(values_of(module.hidden));
  return all;
}

// The same through caches, in pieces; of module k without its first k + 1 rows, which training has not.
Rows by_caches(const Exec& exec, const model::Model& m, ops::CacheType type, std::span<const int32_t> ids, size_t piece,
               MlaForm form) {
  model::CachePool pool(m, type, int64_t{8} << 20, true);
  model::KvCache text(pool, static_cast<int64_t>(ids.size()));
  model::Pass pass({size_t{32} << 20, size_t{32} << 20});
  Rows all(pool.predictors());
  for (size_t at = 0; at < ids.size(); at += piece) {
    const auto some = ids.subspan(at, std::min(piece, ids.size() - at));
    const auto n = static_cast<int64_t>(some.size());
    text.make_room(n);
    model::CachedTokens places;
    places.add(text, n, form);
    pass.forward(exec, m, some, places.context(), {model::Tape::Keep::nothing, model::Recompute::none, &pool});
    for (size_t k = 0; k < pool.predictors(); ++k) {
      const auto ahead = static_cast<int64_t>(k + 1);
      places.clear();
      places.add(text, text.length(), n, form, ahead);
      const Mat hidden = pass.predict(exec, m, k, some, places.context(), pool).hidden;
      const int64_t absent = std::clamp<int64_t>(ahead - text.length(), 0, n);
      const std::vector<float> rows = values_of(hidden.row_block(absent, n - absent));
      all[k].insert(all[k].end(), rows.begin(), rows.end());
    }
    text.advance(n);
  }
  return all;
}

model::ModelConfig sparse_config() {
  model::ModelConfig c = small_config();
  c.index_n_heads = 3, c.index_head_dim = 8, c.index_topk = 20;
  return c;
}

std::vector<int32_t> ids_below(size_t n, int64_t vocab) {
  std::vector<int32_t> ids(n);
  for (size_t i = 0; i < n; ++i) ids[i] = static_cast<int32_t>(Rng(6).bits(i) % static_cast<uint64_t>(vocab));
  return ids;
}

void check_rows(const Exec& exec, const model::Model& m) {
  const auto ids = ids_below(150, m.config.vocab_size);
  const Rows want = in_training(exec, m, ids);
  for (const size_t piece : {150, 64, 7, 1})
    EXPECT_EQ(by_caches(exec, m, ops::cache_type_of(m.compute), ids, piece, MlaForm::expanded), want)
        << "pieces of " << piece;
}

TEST(MtpCached, RowsAreThoseOfTraining) {
  const Exec exec(2);
  for (const auto& [name, config] : {std::pair{"latent", small_config()},
                                     {"streams", small_config("mhc")},
                                     {"sparse", sparse_config()},
                                     {"gqa", small_config("plain", 1, false)}}) {
    for (const int64_t modules : {1, 3}) {
      for (const DType compute : {f32_t, bf16_t}) {
        SCOPED_TRACE(std::string(name) + ", " + std::to_string(modules) + " modules, " + dtype_name(compute));
        model::ModelConfig c = config;
        c.num_nextn_predict_layers = modules;
        SmallModel s(c, compute, 5, exec);
        check_rows(exec, *s.m);
      }
    }
  }
}

TEST(MtpCached, ReferenceCheckpoint) {
  if (cases_of({"deepseek_v3_mtp"}).empty()) GTEST_SKIP() << "no case deepseek_v3_mtp here";
  const Exec exec(2);
  check_rows(exec, load_case("deepseek_v3_mtp", DType::f32, exec)->m);
}

// Windows cannot go back, so that nothing is drafted: their pools have no rows of modules.
TEST(MtpCached, V4HasNone) {
  const Exec exec(1);
  model::ModelConfig c = small_v4_config();
  c.num_nextn_predict_layers = 1;
  SmallModel s(c, f32_t, 5, exec);
  EXPECT_EQ(model::CachePool(*s.m, ops::CacheType::f32, int64_t{1} << 20, true).predictors(), 0u);
  EXPECT_EQ(model::CachePool(*s.m, ops::CacheType::f32, int64_t{1} << 20).predictors(), 0u);
}

}  // namespace
}  // namespace birkhoff::test
