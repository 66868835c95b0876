// Weights of 4 or 8 bits in memory, laid out for products with activations of 8 bits (kernels/gemm/quant.h).
#pragma once
#include <cstdint>
#include <optional>

#include "core/exec.h"
#include "core/names.h"
#include "core/view.h"
#include "kernels/gemm/quant.h"
#include "ops/gemm/stored_matrix.h"

namespace birkhoff::ops {

using kernels::QuantType;

// A matrix [rows, cols] in panels. A view: it owns nothing.
struct QuantMatrix {
  uint8_t* data = nullptr;
  QuantType type = QuantType::q4;
  int64_t rows = 0, cols = 0;
  // Of a matrix of that size, a multiple of 64. cols is a multiple of kernels::kQuantBlock.
  static int64_t bytes(QuantType type, int64_t rows, int64_t cols);
};

// What a quantised matrix is made of: rows [first, first + count) of a matrix of a file, or their transpose.
struct QuantSource {
  const StoredMatrix* from = nullptr;
  int64_t first = 0, count = 0;
  bool transposed = false;
  int64_t rows() const { return transposed ? from->cols : count; }
  int64_t cols() const { return transposed ? count : from->cols; }
};

// out = the source. Blocks that the file holds along its rows in the same format are taken as they are; everything else
// is rounded to the nearest code of its block. Throws Error{where "weights"} naming the first number that is not
// finite.
void quantise(const Exec& exec, const QuantSource& source, const QuantMatrix& out);

// What a model's matrices are in memory: quantised where the file's blocks of 4 or 8 bits are taken over without loss
// and otherwise as they lie there; all as they lie there; or quantised when it is opened.
enum class WeightFormat : uint8_t { automatic, stored, q8, q4 };

// Whether one type of QuantMatrix holds all blocks of w, in whatever direction.
bool has_quant_blocks(const StoredMatrix& w);
// Whether rows of the source are columns of a tensor of the file: its blocks, if any, lie across.
bool lies_across(const QuantSource& source);
// The smallest format that holds the source without loss, if any.
std::optional<QuantType> lossless_type(const QuantSource& source);

}  // namespace birkhoff::ops

namespace birkhoff {
template <>
struct NamesOf<ops::WeightFormat> {
  static constexpr Named<ops::WeightFormat> table[] = {{"auto", ops::WeightFormat::automatic},
                                                       {"stored", ops::WeightFormat::stored},
                                                       {"q8", ops::WeightFormat::q8},
                                                       {"q4", ops::WeightFormat::q4}};
};
}  // namespace birkhoff
