#include "reference/complex_step.h"

namespace birkhoff::reference {

std::vector<Complex> lift(const std::vector<double>& x) { return {x.begin(), x.end()}; }

template <class S>
S dot(const std::vector<double>& a, const std::vector<S>& b) {
  S s = 0;
  for (size_t i = 0; i < a.size(); ++i) s += a[i] * b[i];
  return s;
}

template double dot(const std::vector<double>&, const std::vector<double>&);
template Complex dot(const std::vector<double>&, const std::vector<Complex>&);

}  // namespace birkhoff::reference
