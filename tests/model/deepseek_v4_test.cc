// DeepSeek-V4 against the reference checkpoints: both spellings of names and config, logits, states of all streams,
// coefficients of every hyper-connection site, expert choices, gradients, and decoding across window, CSA and HCA
// boundaries.
#include <gtest/gtest.h>

#include <map>

#include "model/config/model_type.h"
#include "model/pass.h"
#include "ops/rows/elementwise.h"
#include "support/matrix.h"
#include "support/model_case.h"

namespace birkhoff {
namespace {

using test::case_dir;
using test::golden;
using test::Owned;

struct CaseRun {
  Exec exec{2};
  std::string name;
  nlohmann::json about;
  io::SafetensorsFile file;
  test::Tokens tokens;
  std::unique_ptr<test::LoadedModel> loaded;
  Arena kept{size_t{256} << 20}, scratch{size_t{256} << 20};
  model::Tape tape;

  explicit CaseRun(const std::string& case_name)
      : name(case_name),
        about(io::read_json(case_dir(name) + "/golden.json")),
        file(case_dir(name) + "/golden.safetensors"),
        tokens(golden(file, "input_ids"), test::golden_shape(file, "input_ids")[0],
               test::golden_shape(file, "input_ids")[1]),
        loaded(test::load_case(name, DType::f32, exec)) {
    tape = model::reserve_tape(kept, m(), tokens.size(), model::Tape::Keep::for_backward);
    model::forward({exec, m(), tokens.context(), scratch}, tokens.ids, tape);
  }
  model::Model& m() { return loaded->m; }
  std::vector<int64_t> traced() const { return about.at("trace_tokens").get<std::vector<int64_t>>(); }
  std::vector<double> logits() {
    Owned out(tokens.size(), m().config.vocab_size);
    model::logits(exec, m(), tape.hidden, out);
    return out.values();
  }
  // Rows of the traced tokens.
  std::vector<double> rows(CMat x) const {
    std::vector<double> v;
    for (int64_t t : traced()) v.insert(v.end(), x.f32(t), x.f32(t) + x.cols);
    return v;
  }
};

void expect_experts(CaseRun& r) {
  for (size_t l = 0; l < r.tape.layers.size(); ++l) {
    const auto& routing = std::get<layers::Moe::Saved>(r.tape.layers[l].ffn).routing;
    const auto index = golden(r.file, "experts." + std::to_string(l) + ".index"),
               weight = golden(r.file, "experts." + std::to_string(l) + ".weight");
    for (size_t i = 0; i < index.size(); ++i) {
      ASSERT_EQ(routing.index[i], static_cast<int32_t>(index[i])) << "layer " << l << " slot " << i;
      EXPECT_NEAR(routing.weights.f32()[i], weight[i], 1e-4) << "layer " << l << " slot " << i;
    }
  }
}

void expect_coefficients(CaseRun& r) {
  const auto& m = r.m();
  const int64_t T = r.tokens.size(), n = m.residual.streams;
  Owned pre(T, n), post(T, n), res(T, n * n), head(T, n);
  for (int64_t s = 0; s < 2 * m.config.num_hidden_layers; ++s) {
    ops::site_coefficients(r.exec, m.residual, m.site(s), r.tape.site[static_cast<size_t>(s)], pre, post, res);
    const std::string p = "layers." + std::to_string(s / 2) + (s % 2 ? ".hc_ffn." : ".hc_attn.");
    // Sigmoid and Sinkhorn of logits that carry the error of the state before.
    test::expect_close(r.rows(pre.view()), golden(r.file, p + "pre"), 2e-5, p + "pre");
    test::expect_close(r.rows(post.view()), golden(r.file, p + "post"), 2e-5, p + "post");
    auto comb = golden(r.file, p + "comb");
    for (size_t t = 0; t < comb.size();
         t += static_cast<size_t>(n * n))  // stored [j, k]; stream k of the output sums over j
      for (int64_t j = 0; j < n; ++j)
        for (int64_t k = 0; k < j; ++k)
          std::swap(comb[t + static_cast<size_t>(j * n + k)], comb[t + static_cast<size_t>(k * n + j)]);
    test::expect_close(r.rows(res.view()), comb, 2e-5, p + "comb");
  }
  ops::head_coefficients(r.exec, m.residual, m.weights.hc_head, r.tape.head, head);
  test::expect_close(r.rows(head.view()), golden(r.file, "hc_head.pre"), 2e-5, "hc_head");
}

void expect_gradients(CaseRun& r) {
  model::Model& m = r.m();
  Arena memory(size_t{32} << 20);
  model::Weights grads(m.config);
  model::bind(grads, memory.take<float>(model::parameter_elements(m.parameters)));
  std::vector<int32_t> labels(r.tokens.ids.size(), kIgnoreLabel);
  std::copy(r.tokens.ids.begin() + 1, r.tokens.ids.end(), labels.begin());
  model::LossOptions loss;
  loss.scale = static_cast<float>(1.0 / static_cast<double>(r.tokens.size() - 1));
  const model::LossResult result =
      model::backward({r.exec, m, r.tokens.context(), r.scratch}, r.tokens.ids, labels, r.tape, loss, grads);
  EXPECT_NEAR(result.sums.cross_entropy * static_cast<double>(loss.scale), golden(r.file, "loss")[0], 1e-5);
  const model::ModelType& type = model::find_model_type(m.config.model_type);
  std::map<std::string, int> without;
  for (const auto& t : r.about.at("parameters_without_gradient")) without[t.get<std::string>()] = 1;
  int compared = 0;
  grads.for_each([&](const std::string& tensor, Mat g, layers::Role) {
    const std::string theirs = type.file_names(m.config, tensor).front();
    const std::vector<double> got(g.f32(), g.f32() + g.size());
    if (r.file.find("grad." + theirs)) {
      test::expect_close(got, golden(r.file, "grad." + theirs), r.about.at("grad_tolerance").at(theirs),
                         "grad." + theirs);
      ++compared;
    } else {
      EXPECT_EQ(test::largest(got), 0.0) << theirs;
      EXPECT_TRUE(without.count(theirs) || theirs.find("tid2eid") != std::string::npos)
          << theirs << " has no gradient to compare with";
    }
  });
  EXPECT_EQ(compared, static_cast<int>(r.about.at("grad_tolerance").size()));
}

class DeepseekV4 : public testing::TestWithParam<std::string> {};

TEST_P(DeepseekV4, MatchesTheReference) {
  for (const Isa isa : test::machine_isas()) {
    SCOPED_TRACE(isa_name(isa));
    const test::IsaScope scope(isa);
    CaseRun r(GetParam());
    test::expect_close(r.logits(), golden(r.file, "logits"), r.about.at("tolerance"), "logits");
    if (!r.file.find("hidden.0")) continue;
    for (int64_t l = 0; l <= r.m().config.num_hidden_layers; ++l) {
      const auto want = golden(r.file, "hidden." + std::to_string(l));
      test::expect_close(r.rows(r.tape.x[static_cast<size_t>(2 * l)]), want, 2e-5 * std::max(1.0, test::largest(want)),
                         "hidden." + std::to_string(l));
    }
    expect_experts(r);
    expect_coefficients(r);
    if (r.about.contains("grad_tolerance")) expect_gradients(r);
  }
}

// The cache holds the window, entries and what compressors have not finished; every split of a prompt gives the bits of
// the whole.
TEST_P(DeepseekV4, PiecesAreTheWhole) {
  CaseRun r(GetParam());
  const auto want = r.logits();
  const auto& t = r.tokens;
  for (const int64_t piece : {1, 7, 64, 250}) {
    model::CachePool pool(r.m(), ops::cache_type_of(r.m().compute), int64_t{1} << 30);
    model::KvCache text(pool, t.size());
    Arena memory(size_t{64} << 20);
    model::Pass pass(memory, r.scratch);
    std::vector<double> got;
    for (int64_t done = 0; done < t.size(); done += piece) {
      const int64_t n = std::min(piece, t.size() - done);
      model::CachedTokens places;
      text.make_room(n);
      places.add(text, n, layers::MlaForm::expanded);
      const auto ids = std::span(t.ids).subspan(static_cast<size_t>(done), static_cast<size_t>(n));
      model::PassOptions options;
      options.caches = &pool;
      pass.forward(r.exec, r.m(), ids, places.context(), options);
      text.advance(n);
      Owned logits(n, r.m().config.vocab_size);
      ops::copy(r.exec, pass.logits(r.exec, r.m(), 0, n), logits);
      const auto v = logits.values();
      got.insert(got.end(), v.begin(), v.end());
    }
    EXPECT_EQ(got, want) << "pieces of " << piece;
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, DeepseekV4,
                         testing::ValuesIn(test::cases_of({"deepseek_v4", "deepseek_v4_hf", "deepseek_v4_fp4"})),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace birkhoff
