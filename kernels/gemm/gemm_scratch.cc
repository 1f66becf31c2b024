// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/gemm_scratch.h"

#include <algorithm>
#include <cstring>

namespace maskkv::kernels {
namespace {

// Below this many elements waking the other workers costs more than the copy.
constexpr std::int64_t kSerialElements = 1 << 15;

void CopyRow(const float* row, std::int64_t in, DType compute, DType storage, std::byte* target) {
  if (storage == DType::kBF16) {
    ConvertToBf16(row, in, reinterpret_cast<Bf16*>(target));
    return;
  }
  std::memcpy(target, row, static_cast<std::size_t>(in) * sizeof(float));
  if (compute == DType::kBF16) RoundToBf16InPlace(reinterpret_cast<float*>(target), in);
}

}  // namespace

GemmWorkspace::GemmWorkspace() : impl_(std::make_unique<Impl>()) {}
GemmWorkspace::GemmWorkspace(GemmWorkspace&&) noexcept = default;
GemmWorkspace& GemmWorkspace::operator=(GemmWorkspace&&) noexcept = default;
GemmWorkspace::~GemmWorkspace() = default;

std::int64_t GemmWorkspace::bytes() const {
  std::int64_t sum = impl_->input.capacity_bytes();
  for (const WorkerScratch& worker : impl_->workers) sum += worker.bytes();
  return sum;
}

InputTiles::InputTiles(WorkerPool& pool, const PanelProduct& product,
                       FunctionRef<const float*(std::int64_t)> row, std::int64_t rows,
                       bool contiguous, std::int64_t tile_rows, AlignedBuffer<std::byte>& input)
    : rows_(rows),
      tile_rows_(tile_rows),
      last_height_(product.HeightFor(rows - (rows - 1) / tile_rows * tile_rows)),
      row_bytes_(product.in() * static_cast<std::int64_t>(SizeOf(product.storage()))),
      copied_from_(0),
      in_place_(reinterpret_cast<const std::byte*>(row(0))) {
  const std::int64_t last = Begin(count() - 1);
  if (contiguous && product.compute() == DType::kF32) {
    copied_from_ = rows - last == last_height_ ? rows : last;
  }
  const std::int64_t padded_rows = last + last_height_;
  input.Resize(std::max<std::int64_t>(0, padded_rows - copied_from_) * row_bytes_);
  copied_ = input.data();
  const auto copy = [&](std::int64_t i) {
    std::byte* const target = input.data() + (i - copied_from_) * row_bytes_;
    if (i < rows) {
      CopyRow(row(i), product.in(), product.compute(), product.storage(), target);
    } else {
      std::memset(target, 0, static_cast<std::size_t>(row_bytes_));
    }
  };
  const std::int64_t copies = copied_from_ == rows ? 0 : padded_rows - copied_from_;
  if (copies * product.in() <= kSerialElements) {
    for (std::int64_t i = 0; i < copies; ++i) copy(copied_from_ + i);
  } else {
    pool.ParallelFor(copies, [&](std::int64_t i, int) { copy(copied_from_ + i); });
  }
}

}  // namespace maskkv::kernels
