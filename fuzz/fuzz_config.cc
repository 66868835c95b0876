// config.json: every key of a setting, in and out of range.
#include "fuzz/mutate.h"
#include "io/json_file.h"
#include "model/config/config.h"
#include "model/config/model_type.h"
#include "model/config/presets.h"

int main(int argc, char** argv) {
  using namespace birkhoff;
  fuzz::MemoryFile file;
  fuzz::Target t;
  t.name = "config";
  t.seeds = {
      R"({"model_type":"llama","vocab_size":64,"hidden_size":32,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"intermediate_size":48,"max_position_embeddings":128,"rope_theta":10000.0,"rope_scaling":{"type":"linear","factor":4.0},"rms_norm_eps":1e-6,"torch_dtype":"bfloat16"})",
      R"({"model_type":"deepseek_v3","vocab_size":64,"hidden_size":32,"intermediate_size":48,"moe_intermediate_size":16,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":4,"q_lora_rank":16,"kv_lora_rank":16,"qk_nope_head_dim":8,"qk_rope_head_dim":8,"v_head_dim":8,"n_routed_experts":8,"n_shared_experts":1,"num_experts_per_tok":2,"first_k_dense_replace":1,"n_group":4,"topk_group":2,"routed_scaling_factor":2.5,"rope_scaling":{"type":"yarn","factor":40,"original_max_position_embeddings":256,"beta_fast":32,"beta_slow":1,"mscale":1.0,"mscale_all_dim":1.0},"quantization_config":{"weight_block_size":[128,128]}})",
      R"({"model_type":"birkhoff","residual":"mhc","hc_mult":4,"hidden_size":32,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":64,"intermediate_size":48})"};
  for (const std::string& name : model::model_setting_names()) t.dictionary.push_back("\"" + name + "\":");
  for (const char* word :
       {"-1", "0", "1e308", "9223372036854775807", "null", "true", "\"mhc\"", "\"paper\"", "[]", "{}", "\"yarn\""})
    t.dictionary.emplace_back(word);
  t.run = [&](const std::string& input) {
    file.fill(input);
    const model::ModelConfig c = model::config_from_json(io::read_json(file.path()));
    model::config_to_json(c);
  };
  for (const char* text : {"[],", "{},", "{\"\":{}},", "\"0123456789012345\","})
    t.large.push_back([text] {
      return "{\"a\":[" + fuzz::repeated(text, size_t{8} << 20).substr(0, (size_t{8} << 20) - 16) + "0]}";
    });
  t.large.push_back([] { return "{" + fuzz::repeated("\"#\":{},", (size_t{8} << 20) - 64) + "\"x\":0}"; });
  t.large.push_back([] {
    return "{\"a\":[" +
           fuzz::repeated("\"0123456789012345678901234567890123456789012345678901234567\",", (size_t{8} << 20) - 128) +
           "0]}";
  });
  return fuzz::run(argc, argv, t);
}
