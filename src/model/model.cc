#include "model/model.h"

#include <algorithm>

#include "core/error.h"
#include "ops/rows/embedding.h"

namespace birkhoff::model {

Model::Model(const ModelConfig& c, DType compute_type)
    : config(c), compute(compute_type), residual(c.residual_spec()), weights(c) {
  for (size_t i = 0; i < weights.blocks.size(); ++i) blocks.push_back(c.block_spec(static_cast<int64_t>(i)));
  parameters = list_parameters(weights);
}

void Model::make_ropes(int64_t positions, const Arena& memory) {
  for (const RopeSpec& r : config.rope_specs())
    ropes.push_back(memory.is_measuring() ? ops::RopeTable{}
                                          : ops::make_rope_table(positions, r.dim, r.theta, r.scaling));
}

namespace {

ModelConfig run_as_trained(ModelConfig c) {
  c.latent_attention = LatentAttention::expanded;
  return c;
}

}  // namespace

Model::Model(const ModelConfig& c, DType compute_type, int64_t positions, bool for_training, Arena& memory)
    : Model(run_as_trained(c), compute_type) {
  block = memory.take<float>(parameter_elements(parameters));
  bind(weights, block);
  weights.for_each_linear([&](const std::string&, layers::Linear& l) {
    l.take_packed(memory, l.always_fp32 ? f32_t : compute, for_training);
  });
  make_ropes(positions, memory);
}

namespace {

ops::WeightFormat format_named(const std::string& where, const std::string& name) {
  if (const auto format = find_named<ops::WeightFormat>(name)) return *format;
  std::string allowed;
  for (const std::string& n : names_of<ops::WeightFormat>()) allowed += (allowed.empty() ? "one of " : ", ") + n;
  throw Error(where, "unknown format \"" + name + "\"", allowed, ExitCode::usage);
}

}  // namespace

WeightFormats WeightFormats::named(const std::string& matrices, const std::string& head, const std::string& where) {
  WeightFormats f;
  f.matrices = format_named(where + "weights", matrices);
  f.head = !head.empty()                         ? format_named(where + "head-weights", head)
           : f.matrices == ops::WeightFormat::q4 ? ops::WeightFormat::q8
                                                 : f.matrices;
  return f;
}

namespace {

// Of rows [first, first + count) in their file.
int64_t stored_bytes(const ops::StoredMatrix& m, int64_t first, int64_t count) {
  int64_t bytes = 0, begin = 0;
  for (const ops::StoredMatrix::Part& part : m.parts) {
    const int64_t rows = std::min(first + count, begin + part.rows()) - std::max(first, begin);
    bytes += std::max<int64_t>(0, rows) * part.tensor.rows * part.tensor.row_bytes() / part.rows();
    begin += part.rows();
  }
  return bytes;
}

// Whether rows of this length, and the columns of every block that multiplies untransposed, divide into blocks.
bool can_quantise(const layers::Linear& l) {
  if (l.always_fp32 || l.in() % kernels::kQuantBlock) return false;
  for (const layers::Linear::RowBlocks& b : l.row_blocks)
    if (!b.transposed && b.rows % kernels::kQuantBlock) return false;
  return true;
}

// What holds an operand. Where it lies across the rows of the file 4 bits would be rounded a second time, or (keys of
// latent attention) say something else than they do in the other form: 8 bits lose less than their activations.
ops::QuantType operand_type(const ops::QuantSource& s, ops::WeightFormat format) {
  const std::optional<ops::QuantType> lossless = ops::lossless_type(s);
  if (format == ops::WeightFormat::automatic) return lossless.value_or(ops::QuantType::q8);
  if (format == ops::WeightFormat::q8 || ops::lies_across(s)) return ops::QuantType::q8;
  return lossless && lossless != ops::QuantType::q8 ? *lossless : ops::QuantType::q4;  // blocks of 4 bits stay
}

}  // namespace

const ops::QuantMatrix& Model::take_quantised(const ops::QuantSource& source, ops::WeightFormat format, Arena& panels) {
  const ops::QuantType type = operand_type(source, format);
  rounded_again |= format == ops::WeightFormat::automatic && ops::lies_across(source);
  quant_sources_.push_back(source);
  return quantised.emplace_back(
      ops::QuantMatrix{panels.take<uint8_t>(ops::QuantMatrix::bytes(type, source.rows(), source.cols())), type,
                       source.rows(), source.cols()});
}

void Model::read(layers::Linear& l, const ops::StoredMatrix& m, int64_t first_row, ops::WeightFormat format,
                 Arena& panels) {
  if (format == ops::WeightFormat::automatic && (compute == DType::f32 || !ops::has_quant_blocks(m)))
    format = ops::WeightFormat::stored;  // who asks for fp32 wants no activation rounded
  if (format == ops::WeightFormat::stored || !can_quantise(l)) {
    read_in_place += stored_bytes(m, first_row, l.out());
    return l.read_from(m, first_row, l.always_fp32 ? f32_t : compute);
  }
  const ops::QuantMatrix& whole = take_quantised({&m, first_row, l.out(), false}, format, panels);
  std::vector<const ops::QuantMatrix*> row_blocks;
  for (const layers::Linear::RowBlocks& b : l.row_blocks)
    for (int64_t i = 0; i < l.out() / b.step; ++i)
      row_blocks.push_back(
          &take_quantised({&m, first_row + i * b.step + b.first, b.rows, !b.transposed}, format, panels));
  l.read_quantised(whole, row_blocks, compute);
}

namespace {

int64_t bytes_of(const ops::QuantMatrix& m) { return ops::QuantMatrix::bytes(m.type, m.rows, m.cols); }

}  // namespace

void Model::quantise_all(const std::function<void(const ops::QuantSource&, const ops::QuantMatrix&)>& one,
                         const Progress& done) const {
  int64_t all = 0, so_far = 0;
  for (const ops::QuantMatrix& m : quantised) all += bytes_of(m);
  for (size_t i = 0; i < quantised.size(); ++i) {
    one(quant_sources_[i], quantised[i]);
    so_far += bytes_of(quantised[i]);
    if (done) done(so_far, all);
  }
}

void Model::quantise(const Exec& exec, const Progress& done) const {
  quantise_all([&](const ops::QuantSource& s, const ops::QuantMatrix& m) { ops::quantise(exec, s, m); }, done);
}

void Model::quantise_each(const Exec& exec, const std::function<void(ByteRange)>& use, const Progress& done) const {
  int64_t largest = 0;
  for (const ops::QuantMatrix& m : quantised) largest = std::max(largest, bytes_of(m));
  Arena room(static_cast<size_t>(largest));
  quantise_all(
      [&](const ops::QuantSource& s, ops::QuantMatrix m) {
        Arena::Scope scope(room);
        m.data = room.take<uint8_t>(bytes_of(m));
        ops::quantise(exec, s, m);
        use(room.taken());
      },
      done);
}

Model::Model(const ModelConfig& c, DType compute_type, int64_t positions, std::span<const ops::StoredMatrix> tensors,
             const WeightFormats& formats, Arena& memory, Arena& panels)
    : Model(c, compute_type) {
  BK_CHECK_EQ(tensors.size(), parameters.size());
  size_t i = 0;
  // The next tensors of the list, one above the other.
  const auto next = [&](size_t count) -> const ops::StoredMatrix& {
    ops::StoredMatrix& m = stored.emplace_back();
    for (; count > 0; --count) m.append(tensors[i++]);
    return m;
  };
  const auto format_of = [&](const layers::Linear& l) { return &l == &weights.head ? formats.head : formats.matrices; };
  const auto copy_next = [&](Mat& m) {
    m.data = memory.take<float>(m.size());
    const ops::StoredMatrix& from = tensors[i++];
    if (!memory.is_measuring()) ops::expand_rows(from, 0, from.rows, m);
  };
  Weights::visit(
      weights, "",
      layers::Overloaded{
          [&](const std::string&, layers::Linear& l) { read(l, next(l.parts.size()), 0, format_of(l), panels); },
          [&](const std::string&, layers::GroupedLinear& l) {
            const ops::StoredMatrix& m = next(1);
            for (size_t g = 0; g < l.of.size(); ++g)
              read(l.of[g], m, static_cast<int64_t>(g) * l.of[g].out(), formats.matrices, panels);
          },
          [&](const std::string&, Mat& m, layers::Role role) {
            if (role != layers::Role::embedding) return copy_next(m);
            const ops::StoredMatrix& table = next(1);
            read_in_place += stored_bytes(table, 0, table.rows);
          }});
  if (weights.tied) read(weights.head, stored.front(), 0, formats.head, panels);
  make_ropes(positions, memory);
}

void Model::attach_adapters(const LoraSpec& spec, bool for_training, Arena& memory) {
  BK_CHECK(lora.empty());
  lora = spec;
  if (spec.empty()) return;
  add_adapters(config, spec, weights);
  adapters = list_adapters(config, spec, weights);
  adapter_block = memory.take<float>(parameter_elements(adapters));
  size_t i = 0;
  for_each_adapter_matrix(weights, [&](Mat& m) { m.data = adapter_block + adapters[i++].offset; });
  weights.for_each_linear(
      [&](const std::string&, layers::Linear& l) { l.take_adapters(memory, spec.scale(), for_training); });
}

void Model::refresh_adapters(const Exec& exec) {
  ++weights_version_;
  weights.for_each_linear([&](const std::string&, layers::Linear& l) { l.refresh_adapters(exec); });
}

const ops::SiteWeights& Model::site(int64_t s) const {
  const BlockWeights& b = weights.blocks[static_cast<size_t>(s / 2)];
  return s % 2 == 0 ? b.attn_site : b.ffn_site;
}

void Model::refresh(const Exec& exec) {
  ++weights_version_;
  weights.for_each_linear([&](const std::string&, layers::Linear& l) { l.refresh(exec); });
}

void Model::embed(const Exec& exec, std::span<const int32_t> ids, Mat out) const {
  if (stored.empty()) return ops::embedding_forward(exec, weights.embed, ids, out);
  if (stream_bytes && !exec.dry()) {
    std::vector<ByteRange> memory;
    for (const int32_t id : ids) ops::add_memory(stored.front(), id, 1, memory);
    ops::will_need(exec, memory);
  }
  ops::embedding_forward(exec, stored.front(), ids, out);
}

}  // namespace birkhoff::model
