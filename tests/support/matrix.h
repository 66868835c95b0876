// Owning matrices, random data and comparisons for tests.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <cstring>
#include <string>
#include <vector>

#include "core/cpu.h"
#include "core/rng.h"
#include "core/view.h"

namespace birkhoff::test {

// An owning [rows, cols] matrix of fp32 or bf16, zero at first.
class Owned {
 public:
  Owned() = default;
  Owned(int64_t rows, int64_t cols, DType dtype = DType::f32)
      : dtype_(dtype), rows_(rows), cols_(cols), bytes_(static_cast<size_t>(rows * cols * dtype_bytes(dtype)) + 64) {}
  Owned(int64_t rows, int64_t cols, const std::vector<double>& values, DType dtype = DType::f32);
  Mat view() { return {bytes_.data(), dtype_, rows_, cols_}; }
  CMat view() const { return {bytes_.data(), dtype_, rows_, cols_}; }
  operator Mat() { return view(); }
  operator CMat() const { return view(); }
  void set(int64_t i, double v) {
    if (dtype_ == DType::f32)
      reinterpret_cast<float*>(bytes_.data())[i] = static_cast<float>(v);
    else
      reinterpret_cast<bf16*>(bytes_.data())[i] = to_bf16(static_cast<float>(v));
  }
  double at(int64_t i) const {
    return dtype_ == DType::f32 ? reinterpret_cast<const float*>(bytes_.data())[i]
                                : to_float(reinterpret_cast<const bf16*>(bytes_.data())[i]);
  }
  double at(int64_t r, int64_t c) const { return at(r * cols_ + c); }
  std::vector<double> values() const;
  int64_t size() const { return rows_ * cols_; }
  bool same_bytes(const Owned& o) const { return bytes_ == o.bytes_; }

 private:
  DType dtype_ = DType::f32;
  int64_t rows_ = 0, cols_ = 0;
  std::vector<char> bytes_;
};

Owned random(int64_t rows, int64_t cols, uint64_t seed, double sd = 1.0, DType dtype = DType::f32);

// Largest |got - want| compared with `limit`; names the worst element.
void expect_close(const std::vector<double>& got, const std::vector<double>& want, double limit,
                  const std::string& what);

double largest(const std::vector<double>& v);

// Error bound of a sum of `terms` products, each at most `magnitude`, accumulated in fp32 from inputs rounded to `in`,
// stored as `out`: sequential-summation bound with the usual square-root growth times a safety factor of 8, never less
// than one rounding.
inline double sum_tolerance(int64_t terms, double magnitude, DType in = DType::f32, DType out = DType::f32) {
  const double eps_in =
      in == DType::f32 ? 0x1p-24 : 0;  // bf16 products are exact in fp32; inputs are compared as rounded
  const double eps_out = out == DType::f32 ? 0x1p-24 : 0x1p-9;
  return 8 * std::sqrt(static_cast<double>(std::max<int64_t>(terms, 1))) * magnitude * (0x1p-24 + eps_in) +
         2 * eps_out * magnitude * std::sqrt(static_cast<double>(std::max<int64_t>(terms, 1)));
}

// Every instruction set of this machine that there are kernels for, best last. IsaScope caps the kernels for a scope.
inline std::vector<Isa> machine_isas() {
  std::vector<Isa> v;
  for (int i = 0; i <= static_cast<int>(usable_isa()); ++i) v.push_back(static_cast<Isa>(i));
  return v;
}
class IsaScope {
 public:
  explicit IsaScope(Isa isa) { limit_isa(isa); }
  ~IsaScope() { limit_isa(Isa::amx); }
};

}  // namespace birkhoff::test
