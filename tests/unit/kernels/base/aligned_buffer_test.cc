// SPDX-License-Identifier: Apache-2.0
#include "kernels/base/aligned_buffer.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <new>

namespace maskkv::kernels {
namespace {

TEST(AlignedBuffer, EverySizeIsAlignedAndWritableToItsLastByte) {
  constexpr std::int64_t kHuge = std::int64_t{1} << 21;
  for (const std::int64_t size : {std::int64_t{1}, std::int64_t{63}, std::int64_t{65}, kHuge - 1,
                                  kHuge, kHuge + 1, 3 * kHuge + 5}) {
    AlignedBuffer<std::uint8_t> buffer(size);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0U) << size;
    for (std::uint8_t& byte : buffer.span()) byte = 7;
    EXPECT_EQ(buffer.capacity_bytes(), size);
    EXPECT_EQ(buffer.span().back(), 7);
  }
  EXPECT_EQ(AlignedBuffer<float>().data(), nullptr);
}

TEST(AlignedBuffer, ASizeThatNoMemoryHoldsIsBadAlloc) {
  EXPECT_THROW(AlignedAllocate(std::numeric_limits<std::size_t>::max()), std::bad_alloc);
}

}  // namespace
}  // namespace maskkv::kernels
