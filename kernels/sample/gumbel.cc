// SPDX-License-Identifier: Apache-2.0
#include "kernels/sample/gumbel.h"

#include <algorithm>

#include "kernels/base/elementary.h"
#include "kernels/base/multiversion.h"
#include "kernels/base/require.h"
#include "kernels/sample/philox.h"

namespace maskkv::kernels {
namespace {

// Blocks computed side by side, and the numbers they give.
constexpr std::int64_t kBlocks = 16;
constexpr std::int64_t kChunk = 4 * kBlocks;

// Noise of the kBlocks blocks from `first_block`: Philox with every word of the state held for all
// blocks at once, so that the compiler can use a vector for each word.
MASKKV_MULTIVERSION void NoiseOfBlocks(PhiloxKey key, std::uint32_t position, std::uint32_t step,
                                       std::uint32_t first_block, float* noise) {
  std::uint32_t words[4][kBlocks];
  for (std::int64_t block = 0; block < kBlocks; ++block) {
    words[0][block] = position;
    words[1][block] = step;
    words[2][block] = first_block + static_cast<std::uint32_t>(block);
    words[3][block] = static_cast<std::uint32_t>(PhiloxStream::kTokenNoise);
  }
  for (int round = 0; round < kPhiloxRounds; ++round) {
    for (std::int64_t block = 0; block < kBlocks; ++block) {
      const std::uint64_t product0 = std::uint64_t{kPhiloxMultiplier0} * words[0][block];
      const std::uint64_t product1 = std::uint64_t{kPhiloxMultiplier1} * words[2][block];
      words[0][block] = static_cast<std::uint32_t>(product1 >> 32) ^ words[1][block] ^ key[0];
      words[1][block] = static_cast<std::uint32_t>(product1);
      words[2][block] = static_cast<std::uint32_t>(product0 >> 32) ^ words[3][block] ^ key[1];
      words[3][block] = static_cast<std::uint32_t>(product0);
    }
    key = {key[0] + kPhiloxWeyl0, key[1] + kPhiloxWeyl1};
  }
  float by_word[4][kBlocks];
  for (std::int64_t word = 0; word < 4; ++word) {
    for (std::int64_t block = 0; block < kBlocks; ++block) {
      by_word[word][block] = -Log(-Log(UniformFromBits(words[word][block])));
    }
  }
  for (std::int64_t block = 0; block < kBlocks; ++block) {
    for (std::int64_t word = 0; word < 4; ++word) noise[4 * block + word] = by_word[word][block];
  }
}

}  // namespace

void GumbelNoise(std::uint64_t seed, std::uint32_t position, std::uint32_t step,
                 std::int32_t first_id, std::span<float> noise) {
  MASKKV_REQUIRE(first_id >= 0, "negative vocabulary id");
  const auto count = static_cast<std::int64_t>(noise.size());
  std::int64_t skip = first_id % 4;  // numbers of the first block that belong to smaller ids
  auto block = static_cast<std::uint32_t>(first_id / 4);
  for (std::int64_t done = 0; done < count; block += kBlocks) {
    float chunk[kChunk];
    NoiseOfBlocks(KeyOf(seed), position, step, block, chunk);
    const std::int64_t take = std::min(kChunk - skip, count - done);
    std::copy_n(chunk + skip, take, noise.data() + done);
    done += take;
    skip = 0;
  }
}

}  // namespace maskkv::kernels
