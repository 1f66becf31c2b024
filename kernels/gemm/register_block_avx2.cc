// SPDX-License-Identifier: Apache-2.0
// Compiled with -mavx2 -mfma (CMakeLists.txt); run only where block_tile.cc has found them.
#include <immintrin.h>

#include <cstddef>

#include "kernels/gemm/register_block.h"

namespace maskkv::kernels {
namespace {

#define MASKKV_INLINE inline __attribute__((always_inline))

constexpr std::int64_t kLanesOfBlock = kBlockColumns / 2;

// f32 sums of bf16 weights, a value of k at a time.
struct Bf16Products {
  using X = float;
  using W = std::uint16_t;
  using Y = float;
  using Sum = __m256;
  static constexpr std::int64_t kStep = 1;
  // The two halves of the columns.
  struct Weights {
    __m256 low, high;
  };
  static MASKKV_INLINE Sum Zero() { return _mm256_setzero_ps(); }
  static MASKKV_INLINE Sum LoadSum(const float* y) { return _mm256_loadu_ps(y); }
  static MASKKV_INLINE void StoreSum(Sum sum, float* y) { _mm256_storeu_ps(y, sum); }
  static MASKKV_INLINE Weights Load(const std::uint16_t* w) {
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
    const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000U));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(both, 16)),
            _mm256_castsi256_ps(_mm256_and_si256(both, upper))};
  }
  static MASKKV_INLINE __m256 Broadcast(const float* x) { return _mm256_broadcast_ss(x); }
  static MASKKV_INLINE Sum Add(Sum sum, __m256 x, __m256 w) { return _mm256_fmadd_ps(x, w, sum); }
};

// s32 sums of bytes, two values of k at a time.
struct Int8Products {
  using X = std::int16_t;
  using W = std::int8_t;
  using Y = std::int32_t;
  using Sum = __m256i;
  static constexpr std::int64_t kStep = 2;
  struct Weights {
    __m256i low, high;
  };
  static MASKKV_INLINE Sum Zero() { return _mm256_setzero_si256(); }
  static MASKKV_INLINE Sum LoadSum(const std::int32_t* y) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(y));
  }
  static MASKKV_INLINE void StoreSum(Sum sum, std::int32_t* y) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), sum);
  }
  static MASKKV_INLINE Weights Load(const std::int8_t* w) {
    const auto* const vectors = reinterpret_cast<const __m128i*>(w);
    return {_mm256_cvtepi8_epi16(_mm_loadu_si128(vectors)),
            _mm256_cvtepi8_epi16(_mm_loadu_si128(vectors + 1))};
  }
  static MASKKV_INLINE __m256i Broadcast(const std::int16_t* x) {
    int pair;
    __builtin_memcpy(&pair, x, sizeof(pair));
    return _mm256_set1_epi32(pair);
  }
  static MASKKV_INLINE Sum Add(Sum sum, __m256i x, __m256i w) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(x, w));
  }
};

template <typename Products, std::size_t kRows>
void MultiplyRows(const RegisterBlock& block) {
  const auto* const x = static_cast<const typename Products::X*>(block.x);
  auto* const y = static_cast<typename Products::Y*>(block.y);
  const typename Products::X* rows[kRows];
  typename Products::Sum sums[kRows][2];
#pragma GCC unroll 8
  for (std::size_t row = 0; row < kRows; ++row) {
    const auto at = static_cast<std::int64_t>(row);
    rows[row] = x + at * block.ldx;
    const typename Products::Y* const from = y + at * block.ldy;
    sums[row][0] = block.adds ? Products::LoadSum(from) : Products::Zero();
    sums[row][1] = block.adds ? Products::LoadSum(from + kLanesOfBlock) : Products::Zero();
  }
  const auto* w = static_cast<const typename Products::W*>(block.w);
  for (std::int64_t k = 0; k < block.k; k += Products::kStep) {
    const typename Products::Weights weights = Products::Load(w);
    w += Products::kStep * kBlockColumns;
#pragma GCC unroll 8
    for (std::size_t row = 0; row < kRows; ++row) {
      const auto value = Products::Broadcast(rows[row] + k);
      sums[row][0] = Products::Add(sums[row][0], value, weights.low);
      sums[row][1] = Products::Add(sums[row][1], value, weights.high);
    }
  }
#pragma GCC unroll 8
  for (std::size_t row = 0; row < kRows; ++row) {
    typename Products::Y* const to = y + static_cast<std::int64_t>(row) * block.ldy;
    Products::StoreSum(sums[row][0], to);
    Products::StoreSum(sums[row][1], to + kLanesOfBlock);
  }
}

template <typename Products>
void Multiply(const RegisterBlock& block) {
  static_assert(kBlockRows == 6);
  switch (block.rows) {
    case 1:
      return MultiplyRows<Products, 1>(block);
    case 2:
      return MultiplyRows<Products, 2>(block);
    case 3:
      return MultiplyRows<Products, 3>(block);
    case 4:
      return MultiplyRows<Products, 4>(block);
    case 5:
      return MultiplyRows<Products, 5>(block);
    default:
      return MultiplyRows<Products, 6>(block);
  }
}

}  // namespace

void MultiplyBf16Avx2(const RegisterBlock& block) { Multiply<Bf16Products>(block); }
void MultiplyInt8Avx2(const RegisterBlock& block) { Multiply<Int8Products>(block); }

}  // namespace maskkv::kernels
