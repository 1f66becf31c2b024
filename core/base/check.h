// SPDX-License-Identifier: Apache-2.0
//
// MASKKV_CHECK ends the process when one of our own invariants is broken. It is on in every build.
// What a caller, a peer, a file or the environment did wrong is never checked with it: that is an
// absl::Status.
#ifndef MASKKV_CORE_BASE_CHECK_H_
#define MASKKV_CORE_BASE_CHECK_H_

namespace maskkv {

// Writes one line to stderr and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition,
                              const char* message);

}  // namespace maskkv

#define MASKKV_CHECK(condition, message)                              \
  do {                                                                \
    if (!(condition)) [[unlikely]]                                    \
      ::maskkv::CheckFailed(__FILE__, __LINE__, #condition, message); \
  } while (false)

#endif  // MASKKV_CORE_BASE_CHECK_H_
