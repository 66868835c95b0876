// The codebooks of GGUF's IQ formats: rows of eight or four small whole numbers that a code names.
#pragma once
#include <stdint.h>

namespace birkhoff::kernels {

template <int count, int length>
struct CodebookRows {
  int8_t at[count][length];
  const int8_t* operator[](uint32_t row) const { return at[row]; }
};
extern const CodebookRows<256, 8> kIq2Xxs;  // 8, 25, 43
extern const CodebookRows<512, 8> kIq2Xs;
extern const CodebookRows<1024, 8> kIq2S;
extern const CodebookRows<256, 4> kIq3Xxs;  // 4, 12, 20 to 52, 62
extern const CodebookRows<512, 4> kIq3S;    // 1, 3 to 15
extern const CodebookRows<2048, 8> kIq1;    // -1, 0, 1

}  // namespace birkhoff::kernels
