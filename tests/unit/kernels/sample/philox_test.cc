// SPDX-License-Identifier: Apache-2.0
#include "kernels/sample/philox.h"

#include <gtest/gtest.h>

#include <set>

namespace maskkv::kernels {
namespace {

// The known answers that Random123, the authors' library, publishes for philox4x32 with 10 rounds.
TEST(Philox, GivesThePublishedKnownAnswers) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}),
            (PhiloxCounter{0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U}));
  EXPECT_EQ(
      Philox({0xffffffffU, 0xffffffffU, 0xffffffffU, 0xffffffffU}, {0xffffffffU, 0xffffffffU}),
      (PhiloxCounter{0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU}));
  EXPECT_EQ(
      Philox({0x243f6a88U, 0x85a308d3U, 0x13198a2eU, 0x03707344U}, {0xa4093822U, 0x299f31d0U}),
      (PhiloxCounter{0xd16cfe09U, 0x94fdccebU, 0x5001e420U, 0x24126ea1U}));
}

TEST(UniformFromBits, IsExactAndNeverZeroOrOne) {
  EXPECT_EQ(UniformFromBits(0), 0x1p-24F);
  EXPECT_EQ(UniformFromBits(0xffffffffU), 1.0F - 0x1p-24F);
  EXPECT_EQ(UniformFromBits(0x80000000U), 0.5F + 0x1p-24F);
  EXPECT_EQ(UniformFromBits(511), UniformFromBits(0));
  EXPECT_EQ(UniformFromBits(512), 3 * 0x1p-24F);
}

TEST(Uniform, TakesTheDocumentedWordOfTheDocumentedBlock) {
  const std::uint64_t seed = 0x299f31d0a4093822U;
  const PhiloxCounter block = Philox({7, 3, 25, 0}, {0xa4093822U, 0x299f31d0U});
  EXPECT_EQ(Uniform(seed, 7, 3, 102, PhiloxStream::kTokenNoise), UniformFromBits(block[2]));
}

TEST(Uniform, DiffersInEveryPartOfItsAddress) {
  const auto at = [](std::uint64_t seed, std::uint32_t position, std::uint32_t step,
                     std::uint32_t index,
                     PhiloxStream stream) { return Uniform(seed, position, step, index, stream); };
  const std::set<float> values = {
      at(1, 2, 3, 4, PhiloxStream::kTokenNoise),
      at(2, 2, 3, 4, PhiloxStream::kTokenNoise),
      at(1 + (std::uint64_t{1} << 32), 2, 3, 4, PhiloxStream::kTokenNoise),
      at(1, 3, 3, 4, PhiloxStream::kTokenNoise),
      at(1, 2, 4, 4, PhiloxStream::kTokenNoise),
      at(1, 2, 3, 5, PhiloxStream::kTokenNoise),
      at(1, 2, 3, 8, PhiloxStream::kTokenNoise),
      at(1, 2, 3, 4, PhiloxStream::kRandomConfidence)};
  EXPECT_EQ(values.size(), 8U);
}

}  // namespace
}  // namespace maskkv::kernels
