// Fine-tuning on conversations: what users say is read and carries no gradient.
#include <gtest/gtest.h>

#include <algorithm>

#include "data/chat_corpus.h"
#include "support/golden.h"
#include "support/temp_dir.h"
#include "train/trainer.h"

namespace birkhoff::test {
namespace {

using nlohmann::json;

const std::string kLine =
    R"({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is it?"},
 {"role": "assistant", "content": "It is a mask."}, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]})";

TEST(ChatGradient, TurnsOfUsersCarryNone) {
  const TempDir dir;
  std::string line = kLine;
  line.erase(std::remove(line.begin(), line.end(), '\n'), line.end());
  const std::string golden = test::committed_dir();
  const auto tokenizer = text::Tokenizer::open(golden + "/tokenizers/v3");
  const auto format = text::chat::ChatFormat::from_template(read_file(golden + "/chat/templates/deepseek_v3.jinja"));
  const data::ChatCorpus corpus({dir.file("chat.jsonl", line + "\n" + line + "\n")}, {}, tokenizer, format, 96, 1);
  const json settings = {{"vocab_size", tokenizer->size()},
                         {"hidden_size", 32},
                         {"num_hidden_layers", 2},
                         {"num_attention_heads", 4},
                         {"num_key_value_heads", 2},
                         {"head_dim", 8},
                         {"intermediate_size", 64},
                         {"seq_len", 96},
                         {"batch_size", 1},
                         {"steps", 10},
                         {"lr", 1e-3},
                         {"weight_decay", 0.0},
                         {"dtype", "fp32"}};
  const train::RunConfig config = train::make_run_config(settings, {});
  const data::Batch batch = corpus.training_batch(0, 1, 0, 1);

  train::TrainState state(config, 2);
  state.initialise();
  const train::StepOutcome learnt = state.step(0, {batch});
  EXPECT_GT(learnt.grad_norm, 0);
  EXPECT_EQ(learnt.tokens, corpus.counts().learnt_tokens) << "the mean is over what is learnt";

  // Without the answers nothing is left: whatever else the row holds moves no weight.
  data::Batch rest = batch;
  const std::string answers = "It is a mask.<｜end▁of▁sentence｜>Yes.<｜end▁of▁sentence｜>";
  std::vector<int32_t> ids;
  for (int32_t& label : rest.labels)
    if (label != data::kIgnoreLabel) ids.push_back(std::exchange(label, data::kIgnoreLabel));
  EXPECT_EQ(tokenizer->decode(ids), answers);
  train::TrainState other(config, 2);
  other.initialise();
  EXPECT_EQ(other.step(0, {rest}).grad_norm, 0);

  // The answers' gradient does not depend on what stands behind the last of them: padding here, a question there.
  data::Batch changed = batch;
  size_t last = 0;
  for (size_t i = 0; i < batch.labels.size(); ++i)
    if (batch.labels[i] != data::kIgnoreLabel) last = i;
  ASSERT_LT(last + 2, changed.ids.size());
  for (size_t i = last + 1; i < changed.ids.size(); ++i) changed.ids[i] = tokenizer->encode("x")[0];
  train::TrainState third(config, 2);
  third.initialise();
  EXPECT_EQ(third.step(0, {changed}).grad_norm, learnt.grad_norm);
}

}  // namespace
}  // namespace birkhoff::test
