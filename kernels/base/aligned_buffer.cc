// SPDX-License-Identifier: Apache-2.0
#include "kernels/base/aligned_buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

#include "kernels/base/round_up.h"

namespace maskkv::kernels {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{1} << 21;

}  // namespace

void* AlignedAllocate(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  const bool huge = bytes >= kHugePage;
  const std::size_t alignment = huge ? kHugePage : kAlignment;
  if (bytes > SIZE_MAX - alignment) throw std::bad_alloc();
  void* const memory = std::aligned_alloc(alignment, RoundUp(bytes, alignment));
  if (memory == nullptr) throw std::bad_alloc();
  // A hint: whole huge pages only, so that no memory is held that was not asked for. Without them
  // the same bytes lie in small pages.
  if (huge) ::madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return memory;
}

void AlignedFree(void* memory) { std::free(memory); }

}  // namespace maskkv::kernels
