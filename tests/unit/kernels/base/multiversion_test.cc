// SPDX-License-Identifier: Apache-2.0
//
// The versions of a MASKKV_MULTIVERSION function return the same bits. A process runs one version
// only, so the results of fixed inputs are pinned by digests: builds by another compiler or with
// sanitizers (baseline instructions) and machines with narrower vectors must reproduce them.
#include "kernels/base/multiversion.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/activation/swiglu.h"
#include "kernels/norm/cosine.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/sample/gumbel.h"
#include "kernels/sample/philox.h"

namespace maskkv::kernels {
namespace {

// FNV-1a.
template <typename T>
std::uint64_t Digest(std::span<const T> values) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const std::byte byte : std::as_bytes(values)) {
    hash = (hash ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3U;
  }
  return hash;
}

// Values in (-4, 4) that need no library to make.
std::vector<float> Values(std::uint32_t n, std::uint32_t stream) {
  std::vector<float> values(n);
  for (std::uint32_t i = 0; i < n; ++i) {
    values[i] = 8.0F * Uniform(1, stream, 0, i, PhiloxStream::kTokenNoise) - 4.0F;
  }
  return values;
}

TEST(Multiversion, RmsNormGivesTheSameBitsEverywhere) {
  const std::vector<float> x = Values(3 * 259, 1);
  const std::vector<float> weight = Values(259, 2);
  std::vector<float> y(x.size());
  RmsNorm(x.data(), 3, 259, 259, weight.data(), 1e-5F, y.data(), 259);
  EXPECT_EQ(Digest<float>(y), 3818070372160157480U);
}

TEST(Multiversion, CosineSimilarityGivesTheSameBitsEverywhere) {
  const std::vector<float> a = Values(259, 3);
  const std::vector<float> b = Values(259, 4);
  const double cosine = CosineSimilarity(a.data(), b.data(), 259);
  EXPECT_EQ(Digest<double>({&cosine, 1}), 13129147815649901075U);
}

TEST(Multiversion, SwiGluGivesTheSameBitsEverywhere) {
  const std::vector<float> gate = Values(259, 5);
  const std::vector<float> up = Values(259, 6);
  std::vector<float> y(259);
  SwiGlu(gate.data(), up.data(), 1, 259, 259, y.data(), 259);
  EXPECT_EQ(Digest<float>(y), 10593563606393284861U);
}

TEST(Multiversion, GumbelNoiseGivesTheSameBitsEverywhere) {
  std::vector<float> noise(1000);
  GumbelNoise(1, 2, 3, 5, noise);
  EXPECT_EQ(Digest<float>(noise), 8469127779268455759U);
}

}  // namespace
}  // namespace maskkv::kernels
