// SPDX-License-Identifier: Apache-2.0
#include "kernels/compact/gather.h"

#include <algorithm>
#include <cstddef>

#include "kernels/base/cached_row.h"

namespace maskkv::kernels {

void GatherRows(const float* rows, std::int64_t ld, std::int64_t head_dim,
                std::span<const std::int32_t> kept, DType dtype, void* out, float* scales) {
  auto* bytes = static_cast<std::byte*>(out);
  for (const std::int32_t position : kept) {
    const float* row = rows + position * ld;
    if (dtype == DType::kF32) {
      std::copy_n(row, head_dim, reinterpret_cast<float*>(bytes));
    } else if (dtype == DType::kInt8) {
      *scales++ = QuantiseCachedRow(row, head_dim, reinterpret_cast<std::int8_t*>(bytes));
    } else {
      ConvertToBf16(row, head_dim, reinterpret_cast<Bf16*>(bytes));
    }
    bytes += static_cast<std::size_t>(head_dim) * SizeOf(dtype);
  }
}

}  // namespace maskkv::kernels
