// Training further: a run that starts from the weights of another, whole, in part and by adapters; a run that is
// resumed.
#include <gtest/gtest.h>

#include <fstream>

#include "checkpoint/hf_directory.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "report/run_data.h"
#include "support/sanitized.h"
#include "support/small_model.h"
#include "support/temp_dir.h"
#include "train/run_training.h"

namespace birkhoff::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using train::TrainOptions;

// Two texts of one alphabet with other sentences.
std::string counting(int64_t lines) {
  std::string text;
  for (int64_t i = 0; i < lines; ++i)
    text += std::to_string(i % 97) + " and " + std::to_string((i * 7) % 97) + " make a pair.\n";
  return text;
}
std::string weather(int64_t lines) {
  static const char* const kWords[] = {"rain", "snow", "wind", "mist", "sun"};
  std::string text;
  for (int64_t i = 0; i < lines; ++i)
    text += std::string("On day ") + std::to_string(i % 31) + " there is " + kWords[i * i % 5] + " and later " +
            kWords[(i * 3 + 1) % 5] + ".\n";
  return text;
}

struct Further : testing::Test {
  int run(const json& base, const std::vector<std::string>& set, const std::string& data, const std::string& out,
          const std::string& init = "", bool resume = false) {
    TrainOptions o;
    o.settings_base = base, o.settings_set = set, o.out = dir / out, o.init = init.empty() ? "" : dir / init,
    o.resume = resume, o.threads = 2, o.quiet = true;
    if (!resume) o.data = {data};
    return train::run_training(o, stop);
  }
  std::vector<double> losses(const std::string& run_name) {
    std::vector<double> out;
    for (const auto& r : report::read_metrics(dir / (run_name + "/metrics.jsonl"))) out.push_back(r["loss"]);
    return out;
  }
  double held_out(const std::string& run_name) {
    return io::read_json(dir / (run_name + "/run.json"))["final_val_loss"];
  }

  TempDir dir;
  std::atomic<bool> stop = false;
};

const json kSmall = {{"vocab_size", 256},
                     {"hidden_size", 48},
                     {"num_hidden_layers", 2},
                     {"num_attention_heads", 4},
                     {"num_key_value_heads", 2},
                     {"intermediate_size", 96},
                     {"residual", "plain"},
                     {"seq_len", 64},
                     {"batch_size", 4},
                     {"dtype", "fp32"},
                     {"lr", 1e-2},
                     {"warmup_steps", 4}};

TEST_F(Further, WholeAndByAdaptersOnAnotherText) {
  const std::string first = dir.file("first.txt", counting(2000)), second = dir.file("second.txt", weather(2000));
  const std::string steps = sanitized() ? "steps=5" : "steps=60";
  ASSERT_EQ(run(kSmall, {steps}, first, "first"), 0);
  const json training = {{"seq_len", 64}, {"batch_size", 4}, {"dtype", "fp32"}, {"warmup_steps", 4}};
  ASSERT_EQ(run(training, {"steps=1", "lr=0"}, second, "before", "first"), 0);
  ASSERT_EQ(run(training, {steps, "lr=1e-2"}, second, "whole", "first"), 0);
  ASSERT_EQ(run(training, {steps, "lr=1e-2", "lora.rank=4", "lora.alpha=8"}, second, "lora", "first"), 0);
  if (sanitized()) return;
  EXPECT_LT(held_out("whole"), 0.5 * held_out("before"));
  EXPECT_LT(held_out("lora"), 0.7 * held_out("before"));
}

// What training leaves alone is in every checkpoint with the bytes and the type it came with, also after the run was
// resumed.
TEST_F(Further, FrozenTensorsKeepTheirBytes) {
  const Exec exec(1);
  model::ModelConfig c = small_config();
  c.vocab_size = 256;
  SmallModel source(c, f32_t, 5, exec);
  fs::create_directories(dir / "source");
  checkpoint::save_weights(dir / "source", *source.m, model::config_to_json(source.m->config), DType::bf16);
  const std::string text = dir.file("text.txt", counting(500));
  const json training = {{"seq_len", 32},
                         {"batch_size", 2},
                         {"steps", 2},
                         {"schedule", "constant"},
                         {"trainable", "layers\\.1\\.self_attn"},
                         {"bias_update_speed", 0}};
  ASSERT_EQ(run(training, {}, text, "run", "source"), 0);
  const io::SafetensorsFile before(dir / "source/model.safetensors");
  for (const int steps : {2, 4}) {
    if (steps == 4) {
      ASSERT_EQ(run(json::object(), {"steps=4"}, text, "run", "", true), 0);
    }
    const io::SafetensorsFile after(fs::canonical(dir / "run/latest").string() + "/model.safetensors");
    ASSERT_EQ(after.tensors().size(), before.tensors().size());
    int trained = 0;
    for (const io::TensorEntry& e : after.tensors()) {
      const io::TensorEntry* was = before.find(e.name);
      ASSERT_TRUE(was) << e.name;
      if (e.name.find("layers.1.self_attn") != std::string::npos) {
        EXPECT_EQ(e.type, io::TensorType::f32) << e.name;
        ++trained;
        continue;
      }
      EXPECT_EQ(e.type, was->type) << e.name;
      ASSERT_EQ(e.bytes, was->bytes) << e.name;
      EXPECT_EQ(std::memcmp(e.data, was->data, e.bytes), 0) << e.name;
    }
    EXPECT_GT(trained, 4);
    EXPECT_LT(trained, static_cast<int>(after.tensors().size()) / 2);
  }
}

// H_res without iterations: a run in two parts is the run in one, its H_res keeps both sums at 1 to the last few bits,
// and its checkpoint is not one of another form.
TEST_F(Further, FormsOfHResResumeBitForBit) {
  json settings = kSmall;
  settings.update({{"residual", "mhc"},
                   {"batch_size", 2},
                   {"seq_len", 32},
                   {"schedule", "constant"},
                   {"keep_best", false},
                   {"eval_every", 0},
                   {"gain_every", 10},
                   {"hc_init_res_off", -1}});
  const std::string text = dir.file("text.txt", counting(1000));
  const std::string all = sanitized() ? "steps=10" : "steps=40", part = sanitized() ? "steps=4" : "steps=17";
  for (const std::string form : {"lite", "kron"}) {
    SCOPED_TRACE(form);
    settings["hc_res_form"] = form;
    ASSERT_EQ(run(settings, {all}, text, form), 0);
    ASSERT_EQ(run(settings, {part}, text, form + "-parts"), 0);
    ASSERT_EQ(run(json::object(), {all}, text, form + "-parts", "", true), 0);
    EXPECT_EQ(io::read_json(dir / (form + "/config.json"))["hc_res_form"], form);
    const std::string a = fs::canonical(dir / (form + "/latest")).string(),
                      b = fs::canonical(dir / (form + "-parts/latest")).string();
    for (const char* file : {"/model.safetensors", "/trainer_state/optimizer.safetensors"})
      EXPECT_TRUE(read_file(a + file) == read_file(b + file)) << file;
    const std::vector<double> whole = losses(form);
    EXPECT_EQ(losses(form + "-parts"), whole);
    if (!sanitized()) {
      EXPECT_LT(whole.back(), 0.8 * whole.front());
    }
    const json gain = report::read_metrics(dir / (form + "/metrics.jsonl")).back()["gain"];
    for (const char* side : {"forward", "backward"})  // four sites, each as exact as mixture_test.cc says
      for (const double g :
           {gain[side]["composite_max"]["max"].get<double>(), gain[side]["composite_min"]["min"].get<double>()})
        EXPECT_NEAR(g, 1, 4 * 2 * std::sqrt(24.0) * 0x1p-23) << side;
    expect_error(
        [&] {
          run(json::object(), {all, "hc_res_form=sinkhorn"}, text, form + "-parts", "", true);
        },
        {"hc_res_form", form, "sinkhorn"});
  }
}

// DeepSeek-V4 from scratch with Muon and hyper-connections: it learns, and a run in two parts is the run in one, to the
// last bit of every loss, weight and moment.
TEST_F(Further, V4WithMuonResumesBitForBit) {
  model::ModelConfig c = wide_v4_config();
  c.model_type = "birkhoff";  // under our names of settings
  json settings = model::config_to_json(c);
  settings.erase("model_type");
  settings["num_nextn_predict_layers"] = 1;
  settings["hidden_size"] = 48;
  settings.update({{"seq_len", 48},
                   {"batch_size", 1},
                   {"optimizer", "muon"},
                   {"lr", 1e-2},
                   {"schedule", "constant"},
                   {"warmup_steps", 5},
                   {"keep_best", false},
                   {"eval_every", 0},
                   {"gain_every", 0}});
  const std::string text = dir.file("text.txt", counting(3000));
  const size_t steps = sanitized() ? 12 : 200;
  const std::string all = "steps=" + std::to_string(steps);
  ASSERT_EQ(run(settings, {all}, text, "whole"), 0);
  ASSERT_EQ(run(settings, {sanitized() ? "steps=5" : "steps=87"}, text, "parts"), 0);
  ASSERT_EQ(run(json::object(), {all}, text, "parts", "", true), 0);
  EXPECT_EQ(io::read_json(dir / "whole/config.json")["model_type"], "deepseek_v4");
  const std::vector<double> whole = losses("whole");
  ASSERT_EQ(whole.size(), steps);
  EXPECT_EQ(losses("parts"), whole);
  if (!sanitized()) {
    EXPECT_LT(whole.back(), 0.3 * whole.front());
  }
  const std::string a = fs::canonical(dir / "whole/latest").string(), b = fs::canonical(dir / "parts/latest").string();
  for (const char* file : {"/model.safetensors", "/trainer_state/optimizer.safetensors"}) {
    EXPECT_GT(fs::file_size(a + file), 10000u);
    EXPECT_TRUE(read_file(a + file) == read_file(b + file)) << file;
  }
}

}  // namespace
}  // namespace birkhoff::test
