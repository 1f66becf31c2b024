// SPDX-License-Identifier: Apache-2.0
//
// Seeds of randomised tests: printed with the test's output, settable by the environment variable
// MASKKV_TEST_SEED to repeat a failure or to try another.
#ifndef MASKKV_TESTS_SUPPORT_SEED_H_
#define MASKKV_TESTS_SUPPORT_SEED_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

namespace maskkv::testing {

inline std::uint64_t Seed() {
  static const std::uint64_t seed = [] {
    const char* const text = std::getenv("MASKKV_TEST_SEED");
    const std::uint64_t value = text == nullptr ? 20260101 : std::strtoull(text, nullptr, 10);
    std::printf("MASKKV_TEST_SEED=%llu\n", static_cast<unsigned long long>(value));
    return value;
  }();
  return seed;
}

// n values of a normal distribution; `stream` tells the draws of one test apart.
inline std::vector<float> NormalValues(std::int64_t n, std::uint64_t stream, float scale = 1.0F) {
  std::mt19937_64 random(Seed() + 0x9E3779B97F4A7C15U * stream);
  std::normal_distribution<float> normal(0.0F, scale);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& value : values) value = normal(random);
  return values;
}

}  // namespace maskkv::testing

#endif  // MASKKV_TESTS_SUPPORT_SEED_H_
