// SPDX-License-Identifier: Apache-2.0
//
// Element types of tensors and the one 16-bit float we compute with. Activations are f32
// everywhere; tensors of a checkpoint and cached keys and values are f32 or bf16; packed matrices
// may be int8 too (kernels/gemm/quantise.h). bf16 is the upper half of an f32 (8 exponent bits, 7
// stored mantissa bits), so widening is exact and narrowing rounds to the nearest, ties to even.
// All functions are pure and thread safe.
#ifndef MASKKV_KERNELS_BASE_DTYPE_H_
#define MASKKV_KERNELS_BASE_DTYPE_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace maskkv::kernels {

enum class DType : std::uint8_t { kF32, kBF16, kInt8 };

// Bytes of one element.
constexpr std::size_t SizeOf(DType dtype) {
  return dtype == DType::kF32 ? 4 : dtype == DType::kBF16 ? 2 : 1;
}

// "f32", "bf16" or "int8": the spelling of flags and of messages.
constexpr std::string_view Name(DType dtype) {
  return dtype == DType::kF32 ? "f32" : dtype == DType::kBF16 ? "bf16" : "int8";
}

// The type of that name. REQUIRES: there is one.
constexpr DType DTypeNamed(std::string_view name) {
  return name == Name(DType::kF32)    ? DType::kF32
         : name == Name(DType::kBF16) ? DType::kBF16
                                      : DType::kInt8;
}

// What a forward whose matrices compute in `compute` rounds keys and values to: int8 matrices go
// with bf16 pairs.
constexpr DType PairDType(DType compute) {
  return compute == DType::kF32 ? DType::kF32 : DType::kBF16;
}

// Storage of a bf16 value. Not an arithmetic type on purpose: compute in f32.
struct Bf16 {
  std::uint16_t bits;
};
static_assert(sizeof(Bf16) == 2);

// Exact.
constexpr float ToFloat(Bf16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

// Nearest, ties to even; NaN stays NaN (quiet), overflow becomes infinity.
constexpr Bf16 ToBf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) {
    return Bf16{static_cast<std::uint16_t>((bits >> 16) | 0x40U)};
  }
  const std::uint32_t rounded = bits + 0x7fffU + ((bits >> 16) & 1U);
  return Bf16{static_cast<std::uint16_t>(rounded >> 16)};
}

// Replaces n values by the nearest bf16 values.
void RoundToBf16InPlace(float* values, std::int64_t n);

// dst (n) = src (n), converted. The ranges do not overlap.
void ConvertToBf16(const float* src, std::int64_t n, Bf16* dst);

// The same for inputs of a bf16 product: with the machine's own instruction where it has one, which
// makes denormals zero, as its product unit takes them anyway.
void ConvertProductInput(const float* src, std::int64_t n, Bf16* dst);
void ConvertToFloat(const Bf16* src, std::int64_t n, float* dst);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_BASE_DTYPE_H_
