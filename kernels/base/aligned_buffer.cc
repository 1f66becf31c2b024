// SPDX-License-Identifier: Apache-2.0
#include "kernels/base/aligned_buffer.h"

#include <new>

namespace maskkv::kernels {
namespace {
constexpr std::align_val_t kAlignment{64};
}

void* AlignedAllocate(std::size_t bytes) {
  return bytes == 0 ? nullptr : ::operator new(bytes, kAlignment);
}

void AlignedFree(void* memory) {
  if (memory != nullptr) ::operator delete(memory, kAlignment);
}

}  // namespace maskkv::kernels
