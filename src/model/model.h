// A model ready to run: its description, rotary tables and weights: fp32 masters in one block with packed copies in the
// compute type, or (forward only) the tensors of the model file as they lie.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <vector>

#include "core/arena.h"
#include "core/exec.h"
#include "model/config/config.h"
#include "model/lora.h"
#include "model/weights.h"
#include "ops/attention/rope.h"

namespace birkhoff::model {

// What products read: of every matrix and of the head, which weighs most in the quality of small formats. Matrices
// whose rows do not divide into blocks stay as they are stored, and so do norms, routers and hyper-connections.
struct WeightFormats {
  ops::WeightFormat matrices = ops::WeightFormat::automatic;
  ops::WeightFormat head = ops::WeightFormat::automatic;
  bool automatic() const { return *this == WeightFormats{}; }
  // By name; head "": as the matrices, q8 beside q4. where: what goes before "weights" in the name of a flag. Throws
  // Error naming it.
  static WeightFormats named(const std::string& matrices, const std::string& head, const std::string& where = "");
  bool operator==(const WeightFormats&) const = default;
};

struct Model {
  ModelConfig config;
  DType compute;  // of activations and matrix products
  ops::ResidualSpec residual;
  std::vector<BlockSpec> blocks;
  std::vector<ParameterInfo> parameters;
  Weights weights;
  std::vector<ops::RopeTable> ropes;  // config.rope_specs()
  float* block = nullptr;             // the masters, parameter_elements(parameters) floats; null without
  std::deque<ops::StoredMatrix>
      stored;  // views of the file that `weights` reads; the first is the embedding. Empty with masters
  std::deque<ops::QuantMatrix> quantised;  // copies that products read instead; quantise() fills them
  bool rounded_again = false;  // of a format without loss an operand lies across the blocks of the file: it is in q8
  int64_t read_in_place = 0;   // bytes of the file that products, and the embedding, read where they lie
  int64_t stream_bytes = 0;    // more than 0: the files that these lie in may be larger than memory (layers/pass.h)
  LoraSpec lora;
  std::vector<ParameterInfo> adapters;  // matrices of the adapters, if any, in a block of their own
  float* adapter_block = nullptr;

  // Takes masters and packed copies from `memory`, which must outlive the model. positions: longest sequence. Weights
  // are uninitialised; call refresh() after filling them. Sessions of it have the bits of training
  // (LatentAttention::expanded).
  Model(const ModelConfig& c, DType compute_type, int64_t positions, bool for_training, Arena& memory);
  // Forward only, without masters: tensors[i] is parameter i of list_parameters in its file, which must stay mapped.
  // Matrices of products and the embedding are read there; everything else (norms, biases, hyper-connections) is small
  // and becomes fp32 in `memory`. Of another format than `stored`, products read copies in `panels`, one behind the
  // other: call quantise(), unless it holds them already.
  Model(const ModelConfig& c, DType compute_type, int64_t positions, std::span<const ops::StoredMatrix> tensors,
        const WeightFormats& formats, Arena& memory, Arena& panels);
  Model(const Model&) = delete;  // `weights` points into `stored`
  Model& operator=(const Model&) = delete;

  // Gives linear layers uninitialised adapters with memory from `memory`; call refresh() or refresh_adapters() after
  // filling them. Once only.
  void attach_adapters(const LoraSpec& spec, bool for_training, Arena& memory);
  void refresh_adapters(const Exec& exec);

  // Fills the quantised copies from the file; done(bytes so far, bytes in all) after each. Throws Error.
  using Progress = std::function<void(int64_t, int64_t)>;
  void quantise(const Exec& exec, const Progress& done = {}) const;
  // The same into memory for one of them: use(its bytes) before the next is made, in their order in `panels`.
  void quantise_each(const Exec& exec, const std::function<void(ByteRange)>& use, const Progress& done = {}) const;

  int64_t sites() const { return 2 * config.num_hidden_layers; }
  const ops::SiteWeights& site(int64_t s) const;
  // Packed copies from the masters.
  void refresh(const Exec& exec);
  // How often products were made to read other weights: what was computed with another number is of other ones.
  uint64_t weights_version() const { return weights_version_; }
  // out [T, D] = rows of the embedding.
  void embed(const Exec& exec, std::span<const int32_t> ids, Mat out) const;

 private:
  Model(const ModelConfig& c, DType compute_type);
  void make_ropes(int64_t positions, const Arena& memory);
  // Products of l read rows from `first_row` on of m, or a quantised copy of them.
  void read(layers::Linear& l, const ops::StoredMatrix& m, int64_t first_row, ops::WeightFormat format, Arena& panels);
  void quantise_all(const std::function<void(const ops::QuantSource&, const ops::QuantMatrix&)>& one,
                    const Progress& done) const;
  const ops::QuantMatrix& take_quantised(const ops::QuantSource& source, ops::WeightFormat format, Arena& panels);
  std::vector<ops::QuantSource> quant_sources_;  // of `quantised`
  uint64_t weights_version_ = 0;
};

}  // namespace birkhoff::model
