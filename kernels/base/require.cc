// SPDX-License-Identifier: Apache-2.0
#include "kernels/base/require.h"

#include <cstdio>
#include <cstdlib>

namespace maskkv::kernels {

void RequireFailed(const char* file, int line, const char* condition, const char* message) {
  std::fprintf(stderr, "%s:%d: precondition broken: %s (%s)\n", file, line, message, condition);
  std::fflush(stderr);
  std::abort();
}

}  // namespace maskkv::kernels
