// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/tile_ladder.h"

#include <cstring>
#include <map>
#include <mutex>
#include <random>

#include "kernels/base/aligned_buffer.h"

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
        y_(RowsOf(shape) * shape.n) {
    std::minstd_rand random(1);
    Fill(RowsOf(shape) * shape.ldx, random, x_.data());
    AlignedBuffer<std::byte> w(shape.n * shape.k * static_cast<std::int64_t>(SizeOf(shape.dtype)));
    Fill(shape.n * shape.k, random, w.data());
    base.PackWeights(w.data(), shape.k, packed_.data(), runner_);
    for (std::int64_t row = 0; row < RowsOf(shape); row += shape.step) {
      base.Run(RowOf(row), packed_.data(), expected_.data() + row * shape.n, runner_);
    }
  }

  // The base height gives a row the same bits at every place of its tile.
  bool PlacesAgree(const TileKernel& base) {
    for (std::int64_t shift = 1; shift < shape_.step; ++shift) {
      base.Run(RowOf(shift), packed_.data(), y_.data(), runner_);
      if (!Same(expected_.data() + shift * shape_.n, shape_.step)) return false;
    }
    return true;
  }

  // `kernel`, of `height` rows, gives every row the bits of the base height.
  bool Agrees(const TileKernel& kernel, std::int64_t height) {
    kernel.Run(x_.data(), packed_.data(), y_.data(), runner_);
    return Same(expected_.data(), height);
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

  bool Same(const float* expected, std::int64_t rows) const {
    return std::memcmp(expected, y_.data(),
                       static_cast<std::size_t>(rows * shape_.n) * sizeof(float)) == 0;
  }

  const LadderShape shape_;
  const std::int64_t row_bytes_;
  AlignedBuffer<std::byte> x_;
  AlignedBuffer<std::byte> packed_;
  AlignedBuffer<float> expected_;
  AlignedBuffer<float> y_;
  TileRunner runner_;
};

}  // namespace

std::unique_ptr<const TileLadder> TileLadder::Build(const LadderShape& shape) {
  auto ladder = std::make_unique<TileLadder>();
  auto& kernels = ladder->kernels_;
  for (std::size_t index = 0; index < kernels.size(); ++index) {
    const std::int64_t height = static_cast<std::int64_t>(index + 1) * shape.step;
    kernels[index] = TileKernel::Create(height, shape.k, shape.n, shape.ldx, shape.dtype);
    if (kernels[0] == nullptr) return nullptr;
  }
  std::array<bool, kHeights> passed{};
  Probe probe(ladder->base(), shape);
  if (!probe.PlacesAgree(ladder->base())) return nullptr;
  for (std::size_t index = 0; index < kernels.size(); ++index) {
    const std::int64_t height = static_cast<std::int64_t>(index + 1) * shape.step;
    passed[index] = kernels[index] != nullptr &&
                    kernels[index]->SharesWeightsWith(ladder->base()) &&
                    probe.Agrees(*kernels[index], height);
  }
  for (std::size_t index = 0; index < kernels.size(); ++index) {
    if (!passed[index]) kernels[index].reset();
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
