// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/tile_ladder.h"

#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <tuple>
#include <vector>

#include "kernels/base/aligned_buffer.h"
#include "kernels/base/require.h"

namespace maskkv::kernels {
namespace {

// Random inputs of a shape and what the base height makes of them.
class Probe {
 public:
  Probe(const TileKernel& base, std::int64_t k, std::int64_t n, std::int64_t ldx, DType dtype)
      : n_(n),
        row_bytes_(ldx * static_cast<std::int64_t>(SizeOf(dtype))),
        x_(kRowTile * row_bytes_),
        packed_(static_cast<std::int64_t>(base.packed_bytes())),
        expected_(kRowTile * n),
        y_(kRowTile * n) {
    std::minstd_rand random(1);
    Fill(kRowTile * ldx, dtype, random, x_.data());
    AlignedBuffer<std::byte> w(n * k * static_cast<std::int64_t>(SizeOf(dtype)));
    Fill(n * k, dtype, random, w.data());
    base.PackWeights(w.data(), k, packed_.data(), runner_);
    for (std::int64_t row = 0; row < kRowTile; row += kRowStep) {
      base.Run(x_.data() + row * row_bytes_, packed_.data(), expected_.data() + row * n, runner_);
    }
  }

  // The base height gives a row the same bits at every place of its tile.
  bool PlacesAgree(const TileKernel& base) {
    for (std::int64_t shift = 1; shift < kRowStep; ++shift) {
      base.Run(x_.data() + shift * row_bytes_, packed_.data(), y_.data(), runner_);
      if (!Same(expected_.data() + shift * n_, kRowStep)) return false;
    }
    return true;
  }

  // `kernel`, of `height` rows, gives every row the bits of the base height.
  bool Agrees(const TileKernel& kernel, std::int64_t height) {
    kernel.Run(x_.data(), packed_.data(), y_.data(), runner_);
    return Same(expected_.data(), height);
  }

 private:
  static void Fill(std::int64_t count, DType dtype, std::minstd_rand& random, std::byte* values) {
    std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
    for (std::int64_t i = 0; i < count; ++i) {
      const float value = uniform(random);
      const Bf16 narrow = ToBf16(value);
      const auto size = static_cast<std::int64_t>(SizeOf(dtype));
      std::memcpy(values + i * size,
                  dtype == DType::kBF16 ? static_cast<const void*>(&narrow) : &value,
                  SizeOf(dtype));
    }
  }

  bool Same(const float* expected, std::int64_t rows) const {
    return std::memcmp(expected, y_.data(), static_cast<std::size_t>(rows * n_) * sizeof(float)) ==
           0;
  }

  const std::int64_t n_;
  const std::int64_t row_bytes_;
  AlignedBuffer<std::byte> x_;
  AlignedBuffer<std::byte> packed_;
  AlignedBuffer<float> expected_;
  AlignedBuffer<float> y_;
  TileRunner runner_;
};

}  // namespace

std::unique_ptr<const TileLadder> TileLadder::Build(std::int64_t k, std::int64_t n,
                                                    std::int64_t ldx, DType dtype) {
  std::unique_ptr<TileLadder> ladder(new TileLadder);
  ladder->kernels_[0] = TileKernel::Create(kRowStep, k, n, ldx, dtype);
  if (ladder->kernels_[0] == nullptr) return nullptr;
  Probe probe(ladder->base(), k, n, ldx, dtype);
  MASKKV_REQUIRE(probe.PlacesAgree(ladder->base()), "oneDNN's product depends on a row's place");
  for (std::int64_t index = 1; index < kHeights; ++index) {
    const std::int64_t height = (index + 1) * kRowStep;
    auto kernel = TileKernel::Create(height, k, n, ldx, dtype);
    if (kernel == nullptr || !kernel->SharesWeightsWith(ladder->base())) continue;
    if (!probe.Agrees(*kernel, height)) continue;
    ladder->kernels_[static_cast<std::size_t>(index)] = std::move(kernel);
  }
  return ladder;
}

const TileLadder* TileLadder::Get(std::int64_t k, std::int64_t n, std::int64_t ldx, DType dtype) {
  using Shape = std::tuple<std::int64_t, std::int64_t, std::int64_t, DType>;
  static std::mutex mutex;
  static std::map<Shape, std::unique_ptr<const TileLadder>> ladders;
  const std::lock_guard lock(mutex);
  const auto [at, is_new] = ladders.try_emplace(Shape(k, n, ldx, dtype));
  if (is_new) at->second = Build(k, n, ldx, dtype);
  return at->second.get();
}

}  // namespace maskkv::kernels
