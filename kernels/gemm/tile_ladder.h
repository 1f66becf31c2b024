// SPDX-License-Identifier: Apache-2.0
//
// TileLadder: the products of one panel slab, (height, k) x (k, n), for every tile height that is
// safe to mix. oneDNN may sum k in another order for another number of rows, or for another row of
// the same product (its AVX2 code takes six rows at a time and treats the rest differently), and
// documents neither. So the ladder probes: with random inputs every output of a height is compared,
// bit for bit, with what the base height gives for the same row; a height with any difference is
// left out. Another summation order shows in random data with near certainty (all height * n
// outputs would have to round alike), and the order depends on shapes, never on values. Sums of
// bytes have no order, but oneDNN's code for machines without a byte product saturates them half
// way: a ladder of int8 is refused unless extreme bytes give the exact sums. Our own kernels go
// through the same probe.
#ifndef MASKKV_KERNELS_GEMM_TILE_LADDER_H_
#define MASKKV_KERNELS_GEMM_TILE_LADDER_H_

#include <array>
#include <compare>
#include <cstdint>
#include <memory>

#include "kernels/base/dtype.h"
#include "kernels/gemm/tile_kernel.h"

namespace maskkv::kernels {

enum class TileMaker : std::uint8_t {
  kOneDnn,  // onednn_tile.h
  kBlocks,  // block_tile.h
};

// What a ladder is made for: x (height, k) with row stride ldx, w (k, n), heights in multiples of
// `step`; y (height, n) is contiguous: with rows further apart oneDNN's kernels are
// slower over weights that come from memory, by more than a copy of y costs.
struct LadderShape {
  std::int64_t k, n, ldx;
  DType dtype;
  std::int64_t step;
  TileMaker maker;

  auto operator<=>(const LadderShape&) const = default;
};

class TileLadder {
 public:
  // Steps worth trying, best first. The last always passes: a row alone has one place.
  static constexpr std::array<std::int64_t, 3> kSteps = {8, 6, 1};
  // Heights are step, 2 step, ..., kHeights * step, by index.
  static constexpr std::int64_t kHeights = 8;

  // The ladder of a shape, or null when the maker has no such product (of int8: no exact one) or
  // when a row's place within the base height (`step`) changes its bits. Made once a process and
  // kept: a memo of a pure function, as oneDNN's own cache of generated code is. Thread safe.
  // REQUIRES: the calling thread runs OpenMP single threaded.
  static const TileLadder* Get(const LadderShape& shape);

  // The kernel of height (index + 1) * step; null if the probe refused it. Never null for index 0.
  const TileKernel* kernel(std::int64_t index) const {
    return kernels_[static_cast<std::size_t>(index)].get();
  }
  const TileKernel& base() const { return *kernels_[0]; }

 private:
  using Kernels = std::array<std::unique_ptr<const TileKernel>, kHeights>;

  static Kernels Create(const LadderShape& shape);
  static std::unique_ptr<const TileLadder> Build(const LadderShape& shape);

  Kernels kernels_;
};

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_GEMM_TILE_LADDER_H_
