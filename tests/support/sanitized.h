// Whether the address or the thread sanitizer watches: everything takes several times as long then, and a test that
// repeats the same code many times may repeat it less often. What it calls, with which kinds of arguments, stays the
// same.
#pragma once

namespace birkhoff::test {

constexpr bool sanitized() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return true;
#else
  return false;
#endif
}

}  // namespace birkhoff::test
