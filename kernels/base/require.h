// SPDX-License-Identifier: Apache-2.0
//
// MASKKV_REQUIRE ends the process when a caller breaks a precondition of a kernel. Kernels have no
// error channel: shapes come from our own engine, which has validated everything that a file, a
// peer or a flag may say. The check is on in every build, once a call, never in an inner loop.
#ifndef MASKKV_KERNELS_BASE_REQUIRE_H_
#define MASKKV_KERNELS_BASE_REQUIRE_H_

namespace maskkv::kernels {

// Writes one line to stderr and aborts.
[[noreturn]] void RequireFailed(const char* file, int line, const char* condition,
                                const char* message);

}  // namespace maskkv::kernels

#define MASKKV_REQUIRE(condition, message)                                       \
  do {                                                                           \
    if (!(condition)) [[unlikely]]                                               \
      ::maskkv::kernels::RequireFailed(__FILE__, __LINE__, #condition, message); \
  } while (false)

#endif  // MASKKV_KERNELS_BASE_REQUIRE_H_
