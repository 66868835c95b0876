#include "ops/gemm/gemm_pack.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/gemm/gemm.h"
#include "ops/tasks.h"

namespace birkhoff::ops {
namespace {

using kernels::kKBlock;
using kernels::kPanel;

int64_t panel_elements(DType dtype, int64_t k) {
  return kPanel * (dtype == DType::bf16 ? div_up(k, kKBlock) * kKBlock : k);
}

constexpr int64_t kPackTaskElements = 1 << 16;  // about 20 us of memory traffic

template <class S>
void pack_panel_transposed(const Packed& out, CMat w, int64_t panel) {
  const auto& kernel = kernels::pack_kernels();
  const int64_t n = std::min(kPanel, out.n - panel * kPanel);
  const S* from = w.row<S>(panel * kPanel);
  const int64_t at = panel * panel_elements(out.dtype, out.k);
  if constexpr (std::is_same_v<S, float>) {
    out.dtype == DType::f32
        ? kernel.transposed_f32_to_f32(from, w.stride, n, out.k, static_cast<float*>(out.data) + at)
        : kernel.transposed_f32_to_pairs(from, w.stride, n, out.k, static_cast<bf16*>(out.data) + at);
  } else {
    out.dtype == DType::f32
        ? kernel.transposed_bf16_to_f32(from, w.stride, n, out.k, static_cast<float*>(out.data) + at)
        : kernel.transposed_bf16_to_pairs(from, w.stride, n, out.k, static_cast<bf16*>(out.data) + at);
  }
}

template <class S>
void pack_rows(const Packed& out, CMat w, int64_t first, int64_t count) {
  const auto& kernel = kernels::pack_kernels();
  const S* from = w.row<S>(first);
  const int64_t panel = panel_elements(out.dtype, out.k), at = first * kPanel;
  if constexpr (std::is_same_v<S, float>) {
    out.dtype == DType::f32
        ? kernel.rows_f32_to_f32(from, w.stride, count, out.n, static_cast<float*>(out.data) + at, panel)
        : kernel.rows_f32_to_pairs(from, w.stride, count, out.n, static_cast<bf16*>(out.data) + at, panel);
  } else {
    out.dtype == DType::f32
        ? kernel.rows_bf16_to_f32(from, w.stride, count, out.n, static_cast<float*>(out.data) + at, panel)
        : kernel.rows_bf16_to_pairs(from, w.stride, count, out.n, static_cast<bf16*>(out.data) + at, panel);
  }
}

}  // namespace

Packed Packed::of(const QuantMatrix& w, DType dtype) {
  Packed p;
  p.dtype = dtype;
  p.k = w.cols;
  p.n = w.rows;
  p.quant = &w;
  return p;
}

int64_t Packed::bytes(DType dtype, int64_t k, int64_t n) {
  return div_up(n, kPanel) * panel_elements(dtype, k) * dtype_bytes(dtype);
}

Packed Packed::take(Arena& arena, DType dtype, int64_t k, int64_t n) {
  return {arena.take_bytes(static_cast<size_t>(bytes(dtype, k, n))), dtype, k, n};
}

Packed Packed::transposed_rows(const StoredMatrix& w, int64_t first, int64_t count, DType dtype) {
  BK_CHECK(first >= 0 && count >= 0 && first + count <= w.rows);
  return {nullptr, dtype, w.cols, count, &w, first, true};
}

Packed Packed::rows(const StoredMatrix& w, int64_t first, int64_t count, DType dtype) {
  BK_CHECK(first >= 0 && count >= 0 && first + count <= w.rows);
  return {nullptr, dtype, count, w.cols, &w, first, false};
}

void pack_transposed(const Exec& exec, CMat w, Packed out) {
  check_shape(w, out.n, out.k);
  if (exec.dry() || w.empty()) return;
  Exec::Span span(exec, Work::gemm);
  const int64_t panels = div_up(out.n, kPanel), per = std::max<int64_t>(1, kPackTaskElements / (kPanel * out.k));
  exec.parallel_for(div_up(panels, per), [&](int64_t task) {
    for (int64_t p = task * per; p < std::min(panels, (task + 1) * per); ++p)
      w.dtype == DType::f32 ? pack_panel_transposed<float>(out, w, p) : pack_panel_transposed<bf16>(out, w, p);
  });
}

void pack(const Exec& exec, CMat w, Packed out) {
  check_shape(w, out.k, out.n);
  if (exec.dry() || w.empty()) return;
  Exec::Span span(exec, Work::gemm);
  const int64_t rows = kKBlock * std::max<int64_t>(1, kPackTaskElements / (kKBlock * out.n));
  exec.parallel_for(div_up(out.k, rows), [&](int64_t task) {
    const int64_t first = task * rows, count = std::min(rows, out.k - first);
    w.dtype == DType::f32 ? pack_rows<float>(out, w, first, count) : pack_rows<bf16>(out, w, first, count);
  });
}

}  // namespace birkhoff::ops
