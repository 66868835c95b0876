// hc_res_form in a model: how many coefficients, what they start as, and which type of model that is.
#include <nlohmann/json.hpp>

#include "model/config/inventory.h"
#include "support/small_model.h"
#include "support/temp_dir.h"
#include "train/train_config.h"

namespace birkhoff::test {
namespace {

using model::ModelConfig;

struct Form {
  const char* form;
  int64_t streams, logits;
};
const Form kForms[] = {{"sinkhorn", 4, 16}, {"lite", 2, 2}, {"lite", 4, 24}, {"lite", 5, 120},
                       {"kron", 2, 2},      {"kron", 4, 4}, {"kron", 8, 6}};

ModelConfig config_of(const Form& f) {
  ModelConfig c = with_form(small_config("mhc", f.streams), f.form);
  model::validate(c);
  return c;
}

TEST(ResForm, CoefficientsOfASite) {
  for (const Form& f : kForms) {
    SCOPED_TRACE(std::string(f.form) + std::to_string(f.streams));
    const ModelConfig c = config_of(f);
    const int64_t n = f.streams, coefficients = 2 * n + f.logits;
    EXPECT_EQ(c.residual_spec().coefficients(), coefficients);
    model::Weights w(c);
    EXPECT_EQ(w.blocks[0].attn_site.fn.rows, coefficients);
    EXPECT_EQ(w.blocks[1].ffn_site.base.cols, coefficients);
    // Four sites of fn, base and three scales, and the collapse at the end.
    EXPECT_EQ(model::take_inventory(c).groups.at("hyper_connections"),
              4 * (coefficients * (n * 20 + 1) + 3) + n * n * 20 + n + 1);
  }
}

// H_res of the initial static part: weight 1 of the identity against e^off of every other permutation, or of every
// factor's swap.
TEST(ResForm, StartsNearTheIdentity) {
  const Exec exec(1);
  for (const Form& f : kForms)
    for (const double off : {-8.0, 0.0}) {
      SCOPED_TRACE(std::string(f.form) + std::to_string(f.streams) + " off " + std::to_string(off));
      ModelConfig c = config_of(f);
      c.hc_init_phi_std = 0, c.hc_init_res_off = off;
      SmallModel s(c, f32_t, 1, exec);
      model::initialise(c, s.m->weights, 3);
      const int64_t n = f.streams;
      Owned x = random(2, n * c.hidden_size, 4), in(2, c.hidden_size), pre(2, n), post(2, n), res(2, n * n);
      ops::SiteSaved saved = ops::SiteSaved::take(s.kept, s.m->residual, 2);
      ops::site_open(exec, s.m->residual, s.m->site(1), x, saved, in, s.scratch);
      ops::site_coefficients(exec, s.m->residual, s.m->site(1), saved, pre, post, res);
      const double e = std::exp(off), others = std::string(f.form) == "lite" ? static_cast<double>(f.logits - 1)
                                                                             : static_cast<double>(n - 1);
      double diagonal = 1 / (1 + others * e);  // lite: the identity alone; with fixed points of others it is more
      if (std::string(f.form) == "lite") diagonal += static_cast<double>(f.logits / n - 1) * e / (1 + others * e);
      if (std::string(f.form) == "kron") diagonal = std::pow(1 / (1 + e), static_cast<double>(f.logits) / 2);
      for (int64_t k = 0; k < n; ++k) EXPECT_NEAR(res.at(1, k * n + k), diagonal, 4e-6);
      for (int64_t k = 1; k < n && off == 0; ++k) EXPECT_NEAR(res.at(1, k), 1.0 / static_cast<double>(n), 4e-6);
    }
}

TEST(ResForm, OnlySinkhornIsDeepSeekV4) {
  ModelConfig v4 = small_v4_config();
  model::validate(v4);
  v4.model_type = "birkhoff";
  EXPECT_EQ(model::describing_type(v4), "deepseek_v4");
  for (const char* form : {"lite", "kron"}) {
    EXPECT_EQ(model::describing_type(with_form(v4, form)), "birkhoff");
    expect_error(
        [&] {
          ModelConfig c = with_form(small_v4_config(), form);
          model::validate(c);
        },
        {"deepseek_v4", "hc_res_form", form});
  }
  nlohmann::json settings = model::config_to_json(v4);
  settings["hc_res_form"] = "lite";
  const train::RunConfig run = train::make_run_config(settings, {});
  EXPECT_EQ(run.model.model_type, "birkhoff");
  const nlohmann::json echoed = train::run_config_to_json(run);
  EXPECT_EQ(echoed["hc_res_form"], "lite");
  EXPECT_EQ(train::run_config_to_json(train::run_config_from_json(echoed)), echoed);
}

// The other residuals have no form: theirs is not looked at, as all of hc_*.
TEST(ResForm, BelongsToMhc) {
  for (const char* residual : {"plain", "hc"}) {
    ModelConfig c = with_form(small_config(residual, 3), "kron");
    model::validate(c);
    EXPECT_EQ(c.residual_spec().res_form, ops::ResForm::sinkhorn);
  }
}

}  // namespace
}  // namespace birkhoff::test
