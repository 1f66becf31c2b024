// SPDX-License-Identifier: Apache-2.0
//
// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC
// 2011): a counter-based generator. A random number is a function of a key and a counter, so noise
// has no order and no state: batch, threads and repeated evaluation cannot change it. Pure,
// constexpr.
//
// Counter words of this project: (canvas position, step, index / 4, stream); the number of `index`
// is word index % 4 of the block. The key is the request's 64-bit seed, low word first.
#ifndef MASKKV_KERNELS_SAMPLE_PHILOX_H_
#define MASKKV_KERNELS_SAMPLE_PHILOX_H_

#include <array>
#include <cstdint>

namespace maskkv::kernels {

using PhiloxCounter = std::array<std::uint32_t, 4>;
using PhiloxKey = std::array<std::uint32_t, 2>;

// What a counter is used for; the last counter word. Streams never share a number.
enum class PhiloxStream : std::uint32_t {
  kTokenNoise = 0,        // index = vocabulary id
  kRandomConfidence = 1,  // index = 0: the confidence of `random` remasking
  kPositionNoise = 2      // index = 0: which positions a step commits (origin, alg_temp)
};

inline constexpr std::uint32_t kPhiloxMultiplier0 = 0xD2511F53U;
inline constexpr std::uint32_t kPhiloxMultiplier1 = 0xCD9E8D57U;
inline constexpr std::uint32_t kPhiloxWeyl0 = 0x9E3779B9U;
inline constexpr std::uint32_t kPhiloxWeyl1 = 0xBB67AE85U;
inline constexpr int kPhiloxRounds = 10;

constexpr PhiloxKey KeyOf(std::uint64_t seed) {
  return {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
}

// One block: four independent 32-bit numbers.
constexpr PhiloxCounter Philox(PhiloxCounter counter, PhiloxKey key) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const std::uint64_t product0 = std::uint64_t{kPhiloxMultiplier0} * counter[0];
    const std::uint64_t product1 = std::uint64_t{kPhiloxMultiplier1} * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(product0)};
    key = {key[0] + kPhiloxWeyl0, key[1] + kPhiloxWeyl1};
  }
  return counter;
}

// ((bits >> 9) + 0.5) * 2^-23: one of 2^23 values in (0, 1), never 0 or 1, exact in f32.
constexpr float UniformFromBits(std::uint32_t bits) {
  // Through a signed integer: every vector instruction set converts those.
  return (static_cast<float>(static_cast<std::int32_t>(bits >> 9)) + 0.5F) * 0x1p-23F;
}

// The uniform number of (seed, canvas position, step, index, stream).
constexpr float Uniform(std::uint64_t seed, std::uint32_t position, std::uint32_t step,
                        std::uint32_t index, PhiloxStream stream) {
  const PhiloxCounter block =
      Philox({position, step, index / 4, static_cast<std::uint32_t>(stream)}, KeyOf(seed));
  return UniformFromBits(block[index % 4]);
}

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_SAMPLE_PHILOX_H_
