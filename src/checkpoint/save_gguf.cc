#include "checkpoint/save_gguf.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <map>

#include "checkpoint/gguf_metadata.h"
#include "checkpoint/gguf_names.h"
#include "checkpoint/gguf_rope.h"
#include "checkpoint/model_files.h"
#include "core/error.h"
#include "model/config/model_type.h"
#include "ops/gemm/mxfp4.h"
#include "ops/gemm/quantise.h"

namespace birkhoff::checkpoint {
namespace {

using layers::Role;
using ops::StoredType;

struct GgufType {
  StoredType type;
  uint32_t file_type;  // general.file_type, a label
};
constexpr GgufType kWritten[] = {
    {StoredType::f32, 0}, {StoredType::f16, 1}, {StoredType::bf16, 32}, {StoredType::q8_0, 7}, {StoredType::q4_0, 2}};

const io::GgufTensorType& file_type_of(StoredType t) {
  std::string name = ops::stored_format(t).name;
  for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  const auto all = io::gguf_tensor_types();
  return *std::find_if(all.begin(), all.end(), [&](const io::GgufTensorType& k) { return name == k.name; });
}

// A tensor of the file: parameters one above the other, of kv_b_proj one half, or the factors of Llama 3's frequencies.
struct GgufTarget {
  enum class Form { rows, keys, values, rope };
  Form form = Form::rows;
  StoredType type = StoredType::f32;
  std::vector<size_t> parts;
  io::GgufTensorPlan plan;
};

// Rows [first, first + count) of part `part`, which stand at `offset` of the tensor's bytes. Of keys a head, which is
// one piece.
struct GgufPiece {
  size_t part;
  int64_t first, count;
  size_t offset, bytes;
};

class GgufPlanner {
 public:
  // as_they_lie: the values are those of the source.
  GgufPlanner(const model::ModelConfig& c, const std::vector<model::ParameterInfo>& parameters, const TensorMap& source,
              const GgufSaveOptions& o, bool as_they_lie)
      : config_(c), source_(source), options_(o) {
    for (size_t i = 0; i < parameters.size(); ++i)
      if (model::types::block_of(parameters[i].name) < gguf_blocks(c)) add(parameters[i], i);
    if (as_they_lie && o.matrices != StoredType::f32) keep_fp4();
    if (c.rope_scaling.kind == ops::RopeScaling::Kind::llama3)
      put(GgufTarget::Form::rope, {}, kGgufRopeFactors, {c.rope_dim() / 2}, StoredType::f32);
  }
  std::vector<GgufTarget> take() { return std::move(list_); }

 private:
  void put(GgufTarget::Form form, std::vector<size_t> parts, const std::string& name, std::vector<int64_t> shape,
           StoredType type) {
    if (shape.back() % ops::stored_format(type).block_elements) type = plain_like(parts.front());
    list_.push_back({form, type, std::move(parts), {name, std::move(shape), &file_type_of(type)}});
  }

  StoredType plain_like(size_t i) const {
    const StoredType t = source_.views[i].parts.front().tensor.type;
    return t == StoredType::f32 || t == StoredType::f16 ? t : StoredType::bf16;
  }

  StoredType type_of(const model::ParameterInfo& p, size_t i) const {
    if (p.role == Role::expert_table) return StoredType::i32;
    if (p.role == Role::head) return options_.head;
    if (p.role == Role::embedding) {
      if (config_.tie_word_embeddings) return options_.head;
      return ops::stored_format(options_.matrices).block_elements > 1 ? plain_like(i) : options_.matrices;
    }
    const bool matrix = p.role == Role::matrix || p.role == Role::output_projection;
    return matrix ? options_.matrices : StoredType::f32;
  }

  void add(const model::ParameterInfo& p, size_t i) {
    const StoredType type = type_of(p, i);
    if (const GgufSplitLatent split = gguf_split_latent(p); !split.k.empty()) {
      const int64_t heads = config_.num_attention_heads, latent = config_.kv_lora_rank;
      // As in memory (model/model.cc), 8 bits beside 4: they are few, and every token of a cache passes through them.
      const StoredType both = type == StoredType::q4_0 ? StoredType::q8_0 : type;
      put(GgufTarget::Form::keys, {i}, split.k, {heads, latent, config_.qk_nope_head_dim}, both);
      return put(GgufTarget::Form::values, {i}, split.v, {heads, config_.v_head_dim, latent}, both);
    }
    const std::vector<GgufPlace> places = gguf_places(config_, p);
    BK_CHECK(!places.empty());
    const GgufPlace& place = places.front();
    const bool vector = file_shape(p).size() == 1;
    if (place.experts > 0) {
      const auto [known, fresh] = stacks_.emplace(place.name, list_.size());
      if (!fresh) {
        BK_CHECK_EQ(static_cast<int64_t>(list_[known->second].parts.size()), place.expert);
        return list_[known->second].parts.push_back(i);
      }
    }
    put(GgufTarget::Form::rows, {i}, place.name, place.shape(p.cols, vector), type);
  }

  bool is_fp4(size_t i) const {
    const auto& parts = source_.views[i].parts;
    const ops::StoredTensor& t = parts.front().tensor;
    return parts.size() == 1 && !parts.front().turned && (t.type == StoredType::mxfp4 || ops::holds_mxfp4(t));
  }

  // Numbers of 4 bits keep them: another type would take more bytes, or lose something.
  void keep_fp4() {
    for (GgufTarget& t : list_) {
      const bool blocks = t.plan.shape.back() % ops::stored_format(StoredType::mxfp4).block_elements == 0;
      if (t.form != GgufTarget::Form::rows || !blocks ||
          !std::all_of(t.parts.begin(), t.parts.end(), [&](size_t i) { return is_fp4(i); }))
        continue;
      t.type = StoredType::mxfp4;
      t.plan.type = &file_type_of(t.type);
    }
  }

  const model::ModelConfig& config_;
  const TensorMap& source_;
  const GgufSaveOptions& options_;
  std::map<std::string, size_t> stacks_;  // of experts: their place in the list
  std::vector<GgufTarget> list_;
};

class GgufEncoder {
 public:
  GgufEncoder(const model::ModelConfig& c, const std::vector<model::ParameterInfo>& parameters, const TensorMap& source,
              const RowReader& rows)
      : config_(c),
        parameters_(parameters),
        source_(source),
        rows_(rows),
        neighbours_(!c.uses_mla() && !c.qkv_bias && !c.qk_norm) {}

  std::vector<GgufPiece> pieces(const GgufTarget& t) const {
    constexpr int64_t kPieceElements = 1 << 19;
    using Form = GgufTarget::Form;
    const int64_t cols = t.plan.shape.back();
    const size_t row_bytes = static_cast<size_t>(cols / t.plan.type->elements * t.plan.type->bytes);
    std::vector<GgufPiece> list;
    size_t offset = 0;
    const auto add = [&](size_t part, int64_t first, int64_t count) {
      list.push_back({part, first, count, offset, static_cast<size_t>(count) * row_bytes});
      offset += list.back().bytes;
    };
    if (t.form == Form::rope) add(0, 0, 1);
    if (t.form == Form::keys || t.form == Form::values)
      for (int64_t h = 0; h < config_.num_attention_heads; ++h) add(0, h, t.plan.shape[1]);
    if (t.form != Form::rows) return list;
    const int64_t step = std::max<int64_t>(1, kPieceElements / cols);
    for (size_t part = 0; part < t.parts.size(); ++part) {
      const int64_t all = parameters_[t.parts[part]].rows;
      for (int64_t r = 0; r < all; r += step) add(part, r, std::min(step, all - r));
    }
    return list;
  }

  void encode(const GgufTarget& t, const GgufPiece& p, uint8_t* out) const {
    const int64_t cols = t.plan.shape.back();
    if (t.form == GgufTarget::Form::rope) {
      const std::vector<float> f = gguf_rope_factors(config_.rope_dim(), config_.rope_theta, config_.rope_scaling);
      return void(std::memcpy(out, f.data(), p.bytes));
    }
    const size_t i = t.parts[p.part];
    if (t.form == GgufTarget::Form::rows && copy(i, t.type, p, out)) return;
    WorkerScratch scratch;
    const Mat values(scratch.take<float>(p.count * cols), f32_t, p.count, cols);
    if (t.form == GgufTarget::Form::keys)
      read_keys(i, p.first, values);
    else if (t.form == GgufTarget::Form::values)
      read(i, p.first * head_rows() + config_.qk_nope_head_dim, p.count, values);
    else
      for_runs(i, p, [&](int64_t to, int64_t from, int64_t n) { read(i, from, n, values.row_block(to, n)); });
    require_representable(t, values);
    if (t.type == StoredType::f32)
      std::memcpy(out, values.f32(), p.bytes);
    else if (t.type == StoredType::i32)
      write_whole_numbers(values, out);
    else
      ops::quantise_rows(t.type, values.f32(), p.count, cols, cols, out);
  }

 private:
  int64_t head_rows() const { return config_.qk_nope_head_dim + config_.v_head_dim; }  // of kv_b_proj

  bool rotary(size_t i) const {
    const std::string& name = parameters_[i].name;
    return neighbours_ && (name.ends_with("self_attn.q_proj.weight") || name.ends_with("self_attn.k_proj.weight"));
  }

  // Runs of rows of a piece, which stand one after another in a directory: f(row of the piece, row there, rows). Two
  // that rotate together are neighbours in the file and half a head apart there.
  template <class F>
  void for_runs(size_t i, const GgufPiece& p, F&& f) const {
    if (!rotary(i)) return f(0, p.first, p.count);
    for (int64_t r = 0; r < p.count; ++r) {
      const int64_t at = (p.first + r) % config_.head_dim, head = p.first + r - at;
      f(r, head + at / 2 + at % 2 * (config_.head_dim / 2), 1);
    }
  }

  void read(size_t i, int64_t first, int64_t count, Mat out) const {
    if (rows_) return rows_(i, first, count, out);
    ModelFiles::read_rows(source_, config_, parameters_[i], i, first, count, out);
  }

  // Head `h` of kv_b_proj's keys: a row is a latent channel.
  void read_keys(size_t i, int64_t h, Mat out) const {
    WorkerScratch scratch;
    const int64_t nope = config_.qk_nope_head_dim, latent = config_.kv_lora_rank;
    const Mat rows(scratch.take<float>(nope * latent), f32_t, nope, latent);
    read(i, h * head_rows(), nope, rows);
    for (int64_t l = 0; l < latent; ++l)
      for (int64_t n = 0; n < nope; ++n) out.f32(l)[n] = rows.f32(n)[l];
  }

  // Rows that the source holds in this type already.
  bool copy(size_t i, StoredType type, const GgufPiece& p, uint8_t* out) const {
    const ops::StoredMatrix& source = source_.views[i];
    if (rows_ || source.parts.size() > 1 || source.parts.front().turned) return false;
    const ops::StoredTensor& v = source.parts.front().tensor;
    if (type == StoredType::mxfp4 && ops::holds_mxfp4(v)) {
      const size_t row = p.bytes / static_cast<size_t>(p.count);
      for_runs(i, p, [&](int64_t to, int64_t from, int64_t n) {
        ops::mxfp4_rows(v, from, n, out + static_cast<size_t>(to) * row);
      });
      return true;
    }
    if (v.type != type || v.scale) return false;
    const auto bytes = static_cast<size_t>(v.row_bytes());
    if (config_.interleaved_rows) {  // rotary rows too stand as they shall
      std::memcpy(out, v.row(p.first), p.bytes);
      return true;
    }
    for_runs(i, p, [&](int64_t to, int64_t from, int64_t n) {
      std::memcpy(out + static_cast<size_t>(to) * bytes, v.row(from), static_cast<size_t>(n) * bytes);
    });
    return true;
  }

  static void write_whole_numbers(Mat values, uint8_t* out) {
    for (int64_t i = 0; i < values.size(); ++i) {
      const auto v = static_cast<int32_t>(values.f32()[i]);
      std::memcpy(out + i * static_cast<int64_t>(sizeof v), &v, sizeof v);
    }
  }

  void require_representable(const GgufTarget& t, Mat values) const {
    if (t.type == StoredType::f32 || t.type == StoredType::bf16 || t.type == StoredType::i32) return;
    constexpr float kLargestHalf = 65504;
    const float most = t.type == StoredType::f16 ? kLargestHalf : std::numeric_limits<float>::max();
    const float* bad =
        std::find_if(values.f32(), values.f32() + values.size(), [&](float v) { return !(std::abs(v) <= most); });
    if (bad != values.f32() + values.size())
      throw Error(
          "gguf",
          t.plan.name + " has the number " + std::to_string(*bad) + ", which " + t.plan.type->name + " cannot hold",
          "--gguf-type bf16 holds every number");
  }

  const model::ModelConfig& config_;
  const std::vector<model::ParameterInfo>& parameters_;
  const TensorMap& source_;
  const RowReader& rows_;
  const bool neighbours_;  // rotary rows of the architecture
};

// Encodes a tensor on all threads, as many pieces at a time as make the buffer.
class GgufStream {
 public:
  GgufStream(const Exec& exec, io::GgufWriter& out, const GgufEncoder& encoder, const GgufSaveOptions& o, int64_t all)
      : exec_(exec), out_(out), encoder_(encoder), options_(o), all_(all) {}

  void write(const GgufTarget& t) {
    constexpr size_t kBufferBytes = 32 << 20;
    const std::vector<GgufPiece> pieces = encoder_.pieces(t);
    for (size_t begin = 0, end = 0; begin < pieces.size(); begin = end) {
      size_t bytes = 0;
      for (end = begin; end < pieces.size() && (end == begin || bytes + pieces[end].bytes <= kBufferBytes); ++end)
        bytes += pieces[end].bytes;
      buffer_.resize(std::max(buffer_.size(), bytes));
      exec_.parallel_for(static_cast<int64_t>(end - begin), [&](int64_t i) {
        const GgufPiece& p = pieces[begin + static_cast<size_t>(i)];
        encoder_.encode(t, p, buffer_.data() + (p.offset - pieces[begin].offset));
      });
      out_.append(buffer_.data(), bytes);
      done_ += static_cast<int64_t>(bytes);
      if (options_.progress) options_.progress(done_, all_);
    }
  }

 private:
  const Exec& exec_;
  io::GgufWriter& out_;
  const GgufEncoder& encoder_;
  const GgufSaveOptions& options_;
  const int64_t all_;
  int64_t done_ = 0;
  std::vector<uint8_t> buffer_;
};

}  // namespace

ops::StoredType parse_gguf_type(const std::string& where, const std::string& name) {
  std::string known;
  for (const GgufType& t : kWritten) {
    const std::string here = ops::stored_format(t.type).name;
    if (name == here) return t.type;
    known += (known.empty() ? "one of " : ", ") + here;
  }
  throw Error(where, "unknown type \"" + name + "\"", known, ExitCode::usage);
}

void save_gguf(const Exec& exec, const std::string& path, const model::ModelConfig& c,
               const std::vector<model::ParameterInfo>& parameters, const TensorMap& source, const RowReader& rows,
               io::GgufMetadata metadata, const GgufSaveOptions& options) {
  put_gguf_settings(metadata, c);
  const auto* label = std::find_if(std::begin(kWritten), std::end(kWritten),
                                   [&](const GgufType& t) { return t.type == options.matrices; });
  metadata.put("general.file_type", label->file_type);
  metadata.put("general.quantization_version", uint32_t{2});
  const std::vector<GgufTarget> targets = GgufPlanner(c, parameters, source, options, !rows).take();
  std::vector<io::GgufTensorPlan> plans;
  int64_t bytes = 0;
  for (const GgufTarget& t : targets) {
    plans.push_back(t.plan);
    bytes += static_cast<int64_t>(t.plan.bytes());
  }
  io::GgufWriter out(path, metadata, plans);
  if (options.note)
    for (const std::string& note : gguf_notes(c)) options.note(note);
  const GgufEncoder encoder(c, parameters, source, rows);
  GgufStream stream(exec, out, encoder, options, bytes);
  for (const GgufTarget& t : targets) stream.write(t);
  out.finish();
}

}  // namespace birkhoff::checkpoint
