// AdamW, Muon, schedules and clipping against float64 vectors of an independent implementation.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "optim/muon.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "support/golden.h"
#include "support/matrix.h"

namespace birkhoff {
namespace {

using test::golden;
using test::Owned;

const io::SafetensorsFile& file() { return test::golden_file("vectors/training_vectors.safetensors"); }

// The blocks of a few tensors, one after the other.
struct Blocks {
  std::vector<float> weight, grad, moment1, moment2;
  std::vector<optim::Parameter> parameters;
  void add(const std::string& name, int64_t rows, int64_t cols, const std::vector<double>& start, bool decay,
           bool muon) {
    optim::Parameter p;
    p.name = name, p.offset = static_cast<int64_t>(weight.size()), p.rows = rows, p.cols = cols, p.decay = decay,
    p.muon = muon;
    parameters.push_back(p);
    for (const double v : start) weight.push_back(static_cast<float>(v));
    grad.resize(weight.size());
    moment1.resize(weight.size());
    moment2.resize(weight.size());
  }
  void set_grad(size_t i, const double* g) {
    const auto& p = parameters[i];
    for (int64_t j = 0; j < p.rows * p.cols; ++j) grad[static_cast<size_t>(p.offset + j)] = static_cast<float>(g[j]);
  }
  optim::ParameterBlocks view() {
    for (auto& p : parameters) p.weight = weight.data() + p.offset;
    return {grad.data(), moment1.data(), moment2.data(), static_cast<int64_t>(grad.size())};
  }
  std::vector<double> values(const std::vector<float>& block, size_t i) const {
    const auto& p = parameters[i];
    return {block.begin() + p.offset, block.begin() + p.offset + p.rows * p.cols};
  }
};

class Training : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { limit_isa(GetParam()); }
  void TearDown() override { limit_isa(Isa::amx); }
  Exec exec_{2};
  Arena scratch_{size_t{8} << 20};
};

TEST_P(Training, AdamW) {
  const auto lr = golden(file(), "adamw.lr"), betas = golden(file(), "adamw.betas");
  for (const auto& [label, eps, decay] :
       {std::tuple{"eps1e-8.wd0.1", 1e-8, 0.1}, {"eps1e-20.wd0.1", 1e-20, 0.1}, {"eps1e-8.wd0", 1e-8, 0.0}}) {
    Blocks b;
    b.add("a", 6, 5, golden(file(), "adamw.start.a"), true, false);
    b.add("b", 1, 7, golden(file(), "adamw.start.b"), true, false);
    const std::string key = std::string("adamw.") + label;
    const std::vector<std::vector<double>> grads = {golden(file(), "adamw.grads.a"), golden(file(), "adamw.grads.b")};
    const std::vector<std::vector<double>> after = {golden(file(), key + ".after.a"), golden(file(), key + ".after.b")};
    optim::OptimizerOptions o;
    o.beta1 = betas[0], o.beta2 = betas[1], o.eps = eps, o.weight_decay = decay;
    for (size_t step = 0; step < lr.size(); ++step) {
      for (size_t i = 0; i < 2; ++i)
        b.set_grad(i, grads[i].data() + static_cast<int64_t>(step) * b.parameters[i].rows * b.parameters[i].cols);
      o.lr = lr[step];
      optim::optimizer_step(exec_, b.parameters, b.view(), o, static_cast<int64_t>(step) + 1, 1.0, scratch_);
      for (size_t i = 0; i < 2; ++i) {
        const auto n = static_cast<size_t>(b.parameters[i].rows * b.parameters[i].cols);
        const std::vector<double> want(after[i].begin() + static_cast<std::ptrdiff_t>(step * n),
                                       after[i].begin() + static_cast<std::ptrdiff_t>((step + 1) * n));
        // Roundings relative to the weight: one of the start, three a step (decay factor, product, difference); eight
        // of the update, which is about lr.
        const auto steps = static_cast<double>(step + 1);
        const double limit = ((3 * steps + 1) * test::largest(want) + 8 * steps * 0.015) * 0x1p-24;
        test::expect_close(b.values(b.weight, i), want, limit, key + " step " + std::to_string(step));
      }
    }
    for (size_t i = 0; i < 2; ++i) {
      const std::string name(1, static_cast<char>('a' + i));
      const auto m = golden(file(), key + ".m." + name), v = golden(file(), key + ".v." + name);
      test::expect_close(b.values(b.moment1, i), m, 20 * 2 * 0x1p-24 * test::largest(m), key + ".m." + name);
      test::expect_close(b.values(b.moment2, i), v, 20 * 2 * 0x1p-24 * test::largest(v), key + ".v." + name);
    }
    EXPECT_TRUE(std::all_of(b.grad.begin(), b.grad.end(), [](float g) { return g == 0; }))
        << "gradients are zero after the step";
  }
}

TEST_P(Training, AdamWGroups) {
  // Decay touches only the parameters that ask for it, and grad_scale is the same as scaled gradients.
  const auto g = golden(file(), "adamw.grads.b");
  const auto run = [&](bool decay, double scale, double grad_scale) {
    Blocks b;
    b.add("b", 1, 7, golden(file(), "adamw.start.b"), decay, false);
    std::vector<double> scaled(g);
    for (double& x : scaled) x *= scale;
    b.set_grad(0, scaled.data());
    optim::OptimizerOptions o;
    o.lr = 0.01;
    optim::optimizer_step(exec_, b.parameters, b.view(), o, 1, grad_scale, scratch_);
    return b.values(b.weight, 0);
  };
  const auto start = golden(file(), "adamw.start.b");
  const auto with = run(true, 1, 1), without = run(false, 1, 1);
  for (size_t i = 0; i < start.size(); ++i)
    EXPECT_NEAR(without[i] - with[i], 0.01 * 0.1 * start[i], 4e-7 * std::max(1.0, std::abs(start[i])));
  EXPECT_EQ(run(true, 1, 0.5), run(true, 0.5, 1));
}

TEST_P(Training, Muon) {
  const auto lr = golden(file(), "muon.lr");
  for (const auto& [rows, cols] : {std::pair{16, 8}, {8, 16}, {12, 12}, {6, 20}}) {
    const std::string key = "muon." + std::to_string(rows) + "x" + std::to_string(cols);
    const auto grads = golden(file(), key + ".grads"), after = golden(file(), key + ".after");
    const int64_t n = rows * cols;
    Owned first(rows, cols, std::vector<double>(grads.begin(), grads.begin() + n)), out(rows, cols);
    optim::newton_schulz(exec_, first.view(), out, scratch_);
    // "A float32 program agrees to about 1e-6": entries are at most 1, ten iterations of three products each.
    test::expect_close(out.values(), golden(file(), key + ".newton_schulz"), 3e-6, key + ".newton_schulz");
    Blocks b;
    b.add("w", rows, cols, golden(file(), key + ".start"), true, true);
    optim::OptimizerOptions o;
    o.momentum = golden(file(), "muon.momentum")[0];
    o.weight_decay = golden(file(), "muon.weight_decay")[0];
    for (size_t step = 0; step < lr.size(); ++step) {
      b.set_grad(0, grads.data() + static_cast<int64_t>(step) * n);
      o.lr = lr[step];
      optim::optimizer_step(exec_, b.parameters, b.view(), o, static_cast<int64_t>(step) + 1, 1.0, scratch_);
      const std::vector<double> want(after.begin() + static_cast<int64_t>(step) * n,
                                     after.begin() + static_cast<int64_t>(step + 1) * n);
      const double limit = static_cast<double>(step + 1) *
                           (test::largest(want) * 0x1p-23 + lr[step] * 0.18 * std::sqrt(std::max(rows, cols)) * 3e-6);
      test::expect_close(b.values(b.weight, 0), want, limit, key + " step " + std::to_string(step));
    }
    const auto m = golden(file(), key + ".momentum");
    test::expect_close(b.values(b.moment1, 0), m, 20 * 0x1p-24 * test::largest(m), key + ".momentum");
  }
}

TEST_P(Training, MuonOfZeroStaysFinite) {
  Owned zero(5, 7), out(5, 7);
  optim::newton_schulz(exec_, zero.view(), out, scratch_);
  for (const double v : out.values()) EXPECT_EQ(v, 0);
}

TEST_P(Training, Clipping) {
  for (const char* label : {"above", "below"}) {
    const std::string key = std::string("clip.") + label;
    std::vector<float> all;
    std::vector<double> clipped;
    for (const char* i : {"0", "1", "2"}) {
      for (const double g : golden(file(), key + ".grad." + i)) all.push_back(static_cast<float>(g));
      const auto c = golden(file(), key + ".clipped." + i);
      clipped.insert(clipped.end(), c.begin(), c.end());
    }
    const double norm = optim::global_norm(exec_, all.data(), static_cast<int64_t>(all.size()));
    EXPECT_NEAR(norm, golden(file(), key + ".norm")[0], 2 * 0x1p-24 * norm);
    const double factor = optim::clip_factor(norm, 1.0);
    std::vector<double> got;
    for (const float g : all) got.push_back(g * factor);
    test::expect_close(got, clipped, 2 * 0x1p-24, key);
  }
}

TEST_P(Training, NormShowsWhatIsNotFinite) {
  for (const int64_t n : {int64_t{1}, int64_t{15}, int64_t{16}, int64_t{17}, int64_t{70000}}) {
    std::vector<float> g(static_cast<size_t>(n), 0.5f);
    EXPECT_NEAR(optim::global_norm(exec_, g.data(), n), 0.5 * std::sqrt(static_cast<double>(n)),
                1e-9 * static_cast<double>(n));
    for (const float bad : {NAN, INFINITY}) {
      g.back() = bad;
      EXPECT_FALSE(std::isfinite(optim::global_norm(exec_, g.data(), n)));
    }
  }
  EXPECT_EQ(optim::global_norm(exec_, nullptr, 0), 0);
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, Training, testing::ValuesIn(test::machine_isas()),
                         [](const auto& i) { return isa_name(i.param); });

TEST(Schedule, Vectors) {
  const auto shape = golden(file(), "schedule.total_warmup_cosine_start");
  optim::Schedule s;
  s.total_steps = static_cast<int64_t>(shape[0]);
  s.warmup_steps = static_cast<int64_t>(shape[1]);
  const auto check = [&](const std::string& name) {
    const auto want = golden(file(), "schedule." + name);
    for (size_t i = 0; i < want.size(); ++i)
      EXPECT_NEAR(optim::learning_rate(s, static_cast<int64_t>(i)), want[i], 1e-15) << name << " " << i;
  };
  s.kind = optim::Schedule::Kind::step;
  s.lr = 4.2e-4;
  check("step_decay_80_90");
  s.lr = 2.4e-4;
  s.step_share1 = 0.6, s.step_factor1 = 0.316, s.step_factor2 = 0.316 * 0.316;
  check("step_decay_60_90");
  s.kind = optim::Schedule::Kind::cosine;
  s.lr = 2.7e-4, s.min_lr = 2.7e-5;
  s.hold_steps = static_cast<int64_t>(shape[2]);
  check("warmup_constant_cosine");
}

TEST(Schedule, WsdAndConstant) {
  optim::Schedule s;
  s.lr = 1, s.min_lr = 0.1, s.warmup_steps = 10, s.total_steps = 100;
  s.kind = optim::Schedule::Kind::constant;
  EXPECT_DOUBLE_EQ(optim::learning_rate(s, 0), 0.1);
  EXPECT_DOUBLE_EQ(optim::learning_rate(s, 9), 1);
  EXPECT_DOUBLE_EQ(optim::learning_rate(s, 1000), 1);
  s.kind = optim::Schedule::Kind::wsd;
  EXPECT_DOUBLE_EQ(optim::learning_rate(s, 79), 1);
  EXPECT_DOUBLE_EQ(optim::learning_rate(s, 90), 0.55);  // half of the way down, at half of the last fifth
  EXPECT_DOUBLE_EQ(optim::learning_rate(s, 100), 0.1);
}

TEST(Schedule, BatchRamp) {
  int64_t last = 0;
  for (int64_t i = 0; i < 30; ++i) {
    const int64_t n = optim::ramped_batch(8, 20, i);
    EXPECT_GE(n, std::max<int64_t>(1, last));
    EXPECT_LE(n, 8);
    last = n;
  }
  EXPECT_EQ(optim::ramped_batch(8, 20, 0), 1);
  EXPECT_EQ(optim::ramped_batch(8, 20, 20), 8);
  EXPECT_EQ(optim::ramped_batch(8, 0, 0), 8);
}

}  // namespace
}  // namespace birkhoff
