// SPDX-License-Identifier: Apache-2.0
#include "kernels/activation/add.h"

#include "kernels/base/multiversion.h"

namespace maskkv::kernels {
namespace {

MASKKV_MULTIVERSION void Add(const float* source, std::int64_t count, float* target) {
  for (std::int64_t i = 0; i < count; ++i) target[i] += source[i];
}

}  // namespace

void AddInto(const float* source, std::int64_t count, float* target) { Add(source, count, target); }

}  // namespace maskkv::kernels
