// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/tile_ladder.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <random>

#include "kernels/base/aligned_buffer.h"
#include "kernels/gemm/block_tile.h"
#include "kernels/gemm/onednn_tile.h"
#include "kernels/gemm/quantise.h"

namespace maskkv::kernels {
namespace {

// Random inputs of a shape and what the base height makes of them. Kernels that ran in a probe
// outlive it.
class Probe {
 public:
  Probe(const TileKernel& base, const LadderShape& shape)
      : shape_(shape),
        row_bytes_(shape.ldx * static_cast<std::int64_t>(SizeOf(shape.dtype))),
        x_(RowsOf(shape) * row_bytes_),
        packed_(static_cast<std::int64_t>(base.packed_bytes())),
        expected_(RowsOf(shape) * shape.n),
        y_(RowsOf(shape) * shape.n),
        w_(shape.n * shape.k * static_cast<std::int64_t>(SizeOf(shape.dtype))) {
    std::minstd_rand random(1);
    if (shape.dtype == DType::kInt8) {
      FillBytes(random);
    } else {
      Fill(RowsOf(shape) * shape.ldx, random, x_.data());
      Fill(shape.n * shape.k, random, w_.data());
    }
    base.PackWeights(w_.data(), shape.k, packed_.data(), runner_);
    for (std::int64_t row = 0; row < RowsOf(shape); row += shape.step) {
      base.Run(RowOf(row), packed_.data(), expected_.data() + row * shape.n, runner_);
    }
  }

  // The first row of a product of bytes is exact. Its inputs are as large as any.
  bool SumsAreExact() const {
    const auto* const x = reinterpret_cast<const std::uint8_t*>(x_.data());
    for (std::int64_t column = 0; column < shape_.n; ++column) {
      const auto* const w = reinterpret_cast<const std::int8_t*>(w_.data()) + column * shape_.k;
      std::int32_t sum = 0;
      for (std::int64_t k = 0; k < shape_.k; ++k) sum += x[k] * w[k];
      if (std::memcmp(&sum, expected_.data() + column, sizeof(sum)) != 0) return false;
    }
    return true;
  }

  // The base height gives a row the same bits at every place of its tile.
  bool PlacesAgree(const TileKernel& base) {
    for (std::int64_t shift = 1; shift < shape_.step; ++shift) {
      base.Run(RowOf(shift), packed_.data(), y_.data(), runner_);
      if (!Same(shift, shape_.step)) return false;
    }
    return true;
  }

  // `kernel`, of `height` rows, gives every row the bits of the base height.
  bool Agrees(const TileKernel& kernel, std::int64_t height) {
    kernel.Run(x_.data(), packed_.data(), y_.data(), runner_);
    return Same(0, height);
  }

 private:
  static std::int64_t RowsOf(const LadderShape& shape) { return TileLadder::kHeights * shape.step; }

  const std::byte* RowOf(std::int64_t row) const { return x_.data() + row * row_bytes_; }

  void Fill(std::int64_t count, std::minstd_rand& random, std::byte* values) const {
    std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
    const std::size_t size = SizeOf(shape_.dtype);
    for (std::int64_t i = 0; i < count; ++i) {
      const float value = uniform(random);
      const Bf16 narrow = ToBf16(value);
      const void* const from =
          shape_.dtype == DType::kBF16 ? static_cast<const void*>(&narrow) : &value;
      std::memcpy(values + i * static_cast<std::int64_t>(size), from, size);
    }
  }

  // A first row of the largest bytes and columns of the largest, the smallest and random weights;
  // other rows random.
  void FillBytes(std::minstd_rand& random) {
    std::uniform_int_distribution<int> inputs(0, 255);
    std::uniform_int_distribution<int> weights(-kLargestInt8, kLargestInt8);
    for (std::int64_t i = 0; i < x_.size(); ++i) {
      x_.data()[i] = static_cast<std::byte>(i < shape_.k ? 255 : inputs(random));
    }
    for (std::int64_t i = 0; i < w_.size(); ++i) {
      const std::int64_t column = i / shape_.k;
      const int sign = column % 2 == 0 ? 1 : -1;
      w_.data()[i] = static_cast<std::byte>(column < 2 ? sign * kLargestInt8 : weights(random));
    }
  }

  // Rows of y are the expected rows from `first` on, bit for bit.
  bool Same(std::int64_t first, std::int64_t rows) const {
    return std::memcmp(expected_.data() + first * shape_.n, y_.data(),
                       static_cast<std::size_t>(rows * shape_.n) * sizeof(float)) == 0;
  }

  const LadderShape shape_;
  const std::int64_t row_bytes_;
  AlignedBuffer<std::byte> x_;
  AlignedBuffer<std::byte> packed_;
  AlignedBuffer<float> expected_;  // or s32: compared as bits
  AlignedBuffer<float> y_;
  AlignedBuffer<std::byte> w_;
  TileRunner runner_;
};

}  // namespace

TileLadder::Kernels TileLadder::Create(const LadderShape& shape) {
  Kernels kernels;
  for (std::size_t index = 0; index < kernels.size(); ++index) {
    const std::int64_t height = static_cast<std::int64_t>(index + 1) * shape.step;
    const TileShape tile{height, shape.k, shape.n, shape.ldx, shape.n, shape.dtype};
    kernels[index] = shape.maker == TileMaker::kOneDnn ? MakeOneDnnTile(tile) : MakeBlockTile(tile);
  }
  return kernels;
}

std::unique_ptr<const TileLadder> TileLadder::Build(const LadderShape& shape) {
  Kernels made = Create(shape);
  if (made[0] == nullptr) return nullptr;
  Probe probe(*made[0], shape);  // goes before the kernels that ran in it
  if (shape.dtype == DType::kInt8 && !probe.SumsAreExact()) return nullptr;
  if (!probe.PlacesAgree(*made[0])) return nullptr;
  // Decided before any kernel moves: `made` holds the base, and refused kernels outlive the probe.
  std::array<bool, kHeights> passed{};
  for (std::size_t index = 0; index < made.size(); ++index) {
    const std::int64_t height = static_cast<std::int64_t>(index + 1) * shape.step;
    passed[index] = made[index] != nullptr &&
                    made[index]->WeightsLayout() == made[0]->WeightsLayout() &&
                    probe.Agrees(*made[index], height);
  }
  auto ladder = std::make_unique<TileLadder>();
  for (std::size_t index = 0; index < made.size(); ++index) {
    if (passed[index]) ladder->kernels_[index] = std::move(made[index]);
  }
  return ladder;
}

const TileLadder* TileLadder::Get(const LadderShape& shape) {
  static std::mutex mutex;
  static std::map<LadderShape, std::unique_ptr<const TileLadder>> ladders;
  const std::lock_guard lock(mutex);
  const auto [at, is_new] = ladders.try_emplace(shape);
  if (is_new) at->second = Build(shape);
  return at->second.get();
}

}  // namespace maskkv::kernels
