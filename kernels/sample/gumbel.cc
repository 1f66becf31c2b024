// SPDX-License-Identifier: Apache-2.0
#include "kernels/sample/gumbel.h"

#include <algorithm>

#include "kernels/base/elementary.h"
#include "kernels/base/multiversion.h"
#include "kernels/base/require.h"
#include "kernels/sample/philox.h"

namespace maskkv::kernels {
namespace {

// Most blocks computed side by side, and the least: loops over blocks take whole vectors.
constexpr std::int64_t kMostBlocks = 64;
constexpr std::int64_t kBlockStep = 16;

// The words of up to kMostBlocks blocks, each word apart.
struct Words {
  std::uint32_t word[4][kMostBlocks];
};

void FirstCounters(std::uint32_t position, std::uint32_t step, std::uint32_t first_block,
                   std::int64_t blocks, Words& words) {
  for (std::int64_t block = 0; block < blocks; ++block) {
    words.word[0][block] = position;
    words.word[1][block] = step;
    words.word[2][block] = first_block + static_cast<std::uint32_t>(block);
    words.word[3][block] = static_cast<std::uint32_t>(PhiloxStream::kTokenNoise);
  }
}

// One round of Philox on every block.
MASKKV_MULTIVERSION void Round(PhiloxKey key, std::int64_t blocks, const Words& from,
                               Words& __restrict to) {
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::uint64_t product0 = std::uint64_t{kPhiloxMultiplier0} * from.word[0][block];
    const std::uint64_t product1 = std::uint64_t{kPhiloxMultiplier1} * from.word[2][block];
    to.word[0][block] = static_cast<std::uint32_t>(product1 >> 32) ^ from.word[1][block] ^ key[0];
    to.word[1][block] = static_cast<std::uint32_t>(product1);
    to.word[2][block] = static_cast<std::uint32_t>(product0 >> 32) ^ from.word[3][block] ^ key[1];
    to.word[3][block] = static_cast<std::uint32_t>(product0);
  }
}

MASKKV_MULTIVERSION void NoiseFromBits(const std::uint32_t* bits, std::int64_t n,
                                       float* __restrict noise) {
  for (std::int64_t i = 0; i < n; ++i) noise[i] = -Log(-Log(UniformFromBits(bits[i])));
}

// noise (4 * blocks), in order of ids.
void NoiseOfBlocks(PhiloxKey key, std::uint32_t position, std::uint32_t step,
                   std::uint32_t first_block, std::int64_t blocks, float* noise) {
  static_assert(kPhiloxRounds % 2 == 0);
  Words even;
  Words odd;
  FirstCounters(position, step, first_block, blocks, even);
  for (int round = 0; round < kPhiloxRounds; round += 2) {
    Round(key, blocks, even, odd);
    key = {key[0] + kPhiloxWeyl0, key[1] + kPhiloxWeyl1};
    Round(key, blocks, odd, even);
    key = {key[0] + kPhiloxWeyl0, key[1] + kPhiloxWeyl1};
  }
  for (std::int64_t word = 0; word < 4; ++word) {
    float of_word[kMostBlocks];
    NoiseFromBits(even.word[word], blocks, of_word);
    for (std::int64_t block = 0; block < blocks; ++block) noise[4 * block + word] = of_word[block];
  }
}

}  // namespace

void GumbelNoise(std::uint64_t seed, std::uint32_t position, std::uint32_t step,
                 std::int32_t first_id, std::span<float> noise) {
  MASKKV_REQUIRE(first_id >= 0, "negative vocabulary id");
  const auto count = static_cast<std::int64_t>(noise.size());
  std::int64_t skip = first_id % 4;  // numbers of the first block that belong to smaller ids
  auto block = static_cast<std::uint32_t>(first_id / 4);
  for (std::int64_t done = 0; done < count;) {
    const std::int64_t wanted = (skip + count - done + 3) / 4;
    const std::int64_t blocks =
        std::min(kMostBlocks, (wanted + kBlockStep - 1) / kBlockStep * kBlockStep);
    float chunk[4 * kMostBlocks];
    NoiseOfBlocks(KeyOf(seed), position, step, block, blocks, chunk);
    const std::int64_t take = std::min(4 * blocks - skip, count - done);
    std::copy_n(chunk + skip, take, noise.data() + done);
    done += take;
    skip = 0;
    block += static_cast<std::uint32_t>(blocks);
  }
}

}  // namespace maskkv::kernels
