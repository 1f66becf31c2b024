// SPDX-License-Identifier: Apache-2.0
#ifndef MASKKV_KERNELS_BASE_ROUND_UP_H_
#define MASKKV_KERNELS_BASE_ROUND_UP_H_

#include <concepts>
#include <type_traits>

namespace maskkv::kernels {

// The least multiple of `step` that is not below `value`. REQUIRES: value >= 0, step >= 1, and the
// result fits T.
template <std::integral T>
constexpr T RoundUp(T value, std::type_identity_t<T> step) {
  return (value + step - 1) / step * step;
}

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_BASE_ROUND_UP_H_
