// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/gemm_scratch.h"

#include <algorithm>
#include <cstring>

namespace maskkv::kernels {
namespace {

// Elements that one item copies: about a microsecond, several times what claiming an item costs.
constexpr std::int64_t kItemElements = 1 << 13;

// Where a row is converted to.
struct RowTarget {
  const PanelProduct& product;
  std::byte* row;  // (in) of product.storage()
  float* scale;    // of an int8 matrix
};

void ConvertRow(RowSource x, std::int64_t index, AlignedBuffer<float>& scratch,
                const RowTarget& to) {
  const std::int64_t in = to.product.in();
  const DType compute = to.product.compute();
  const DType storage = to.product.storage();
  auto* const stored = reinterpret_cast<float*>(to.row);
  if (compute == DType::kF32) {
    const float* const row = x(index, stored);
    if (row != stored) std::memcpy(stored, row, static_cast<std::size_t>(in) * sizeof(float));
    return;
  }
  scratch.Resize(in);
  const float* const row = x(index, scratch.data());
  if (compute == DType::kInt8) {
    *to.scale = storage == DType::kInt8
                    ? QuantiseRow(row, in, reinterpret_cast<std::uint8_t*>(to.row))
                    : QuantiseRow(row, in, stored);
  } else if (storage == DType::kBF16) {
    ConvertProductInput(row, in, reinterpret_cast<Bf16*>(to.row));
  } else {
    std::memcpy(stored, row, static_cast<std::size_t>(in) * sizeof(float));
    RoundToBf16InPlace(stored, in);
  }
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

InputTiles::InputTiles(WorkerPool& pool, const PanelProduct& product, RowSource x,
                       std::int64_t rows, const float* in_place, std::int64_t tile_rows,
                       GemmWorkspace::Impl& scratch)
    : rows_(rows),
      tile_rows_(tile_rows),
      last_height_(product.HeightFor(rows - (rows - 1) / tile_rows * tile_rows)),
      row_bytes_(product.in() * static_cast<std::int64_t>(SizeOf(product.storage()))),
      copied_from_(0),
      in_place_(reinterpret_cast<const std::byte*>(in_place)),
      scales_(nullptr) {
  AlignedBuffer<std::byte>& input = scratch.input;
  const std::int64_t last = Begin(count() - 1);
  if (in_place != nullptr && product.compute() == DType::kF32) {
    copied_from_ = rows - last == last_height_ ? rows : last;
  }
  const std::int64_t padded_rows = last + last_height_;
  const std::int64_t copied_bytes =
      std::max<std::int64_t>(0, padded_rows - copied_from_) * row_bytes_;
  const std::int64_t scales_at = (copied_bytes + 63) / 64 * 64;
  const bool scaled = product.compute() == DType::kInt8;
  input.Resize(scaled ? scales_at + padded_rows * static_cast<std::int64_t>(sizeof(float))
                      : copied_bytes);
  copied_ = input.data();
  float* const scales = scaled ? reinterpret_cast<float*>(input.data() + scales_at) : nullptr;
  scales_ = scales;
  const std::int64_t copies = copied_from_ == rows ? 0 : padded_rows - copied_from_;
  const std::int64_t step = std::max<std::int64_t>(1, kItemElements / product.in());
  pool.ParallelFor((copies + step - 1) / step, [&](std::int64_t item, int worker) {
    AlignedBuffer<float>& row = scratch.workers[static_cast<std::size_t>(worker)].row;
    for (std::int64_t i = item * step; i < std::min((item + 1) * step, copies); ++i) {
      std::byte* const target = input.data() + i * row_bytes_;
      if (copied_from_ + i < rows) {
        ConvertRow(x, copied_from_ + i, row, {product, target, scaled ? scales + i : nullptr});
      } else {
        if (scaled) scales[i] = 0.0F;
        std::memset(target, 0, static_cast<std::size_t>(row_bytes_));
      }
    }
  });
}

}  // namespace maskkv::kernels
