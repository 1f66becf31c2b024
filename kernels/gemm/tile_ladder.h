// SPDX-License-Identifier: Apache-2.0
//
// TileLadder: the products of one panel slab, (height, k) x (k, n), for every tile height that is
// safe to mix. oneDNN may sum k in another order for another number of rows, or at another row of
// the same product, and documents neither. So the ladder probes: with random inputs every output of
// a height is compared, bit for bit, with what the base height gives for the same row; a height
// with any difference is left out. A summation order that differs shows in random data with near
// certainty (each of height * n outputs would have to round alike), and the order depends on
// shapes, never on values.
#ifndef MASKKV_KERNELS_GEMM_TILE_LADDER_H_
#define MASKKV_KERNELS_GEMM_TILE_LADDER_H_

#include <array>
#include <cstdint>
#include <memory>

#include "kernels/base/dtype.h"
#include "kernels/gemm/packed_matrix.h"
#include "kernels/gemm/tile_kernel.h"

namespace maskkv::kernels {

class TileLadder {
 public:
  // Heights kRowStep, 2 kRowStep, ..., kRowTile, by index.
  static constexpr std::int64_t kHeights = kRowTile / kRowStep;

  // The ladder of a shape, or null when the machine has no such product. Made once a process and
  // kept: a memo of a pure function, as oneDNN's own cache of generated code is. Thread safe.
  // REQUIRES: the calling thread runs OpenMP single threaded.
  static const TileLadder* Get(std::int64_t k, std::int64_t n, std::int64_t ldx, DType dtype);

  // The kernel of height (index + 1) * kRowStep; null if the probe refused it. Never null for index
  // 0.
  const TileKernel* kernel(std::int64_t index) const {
    return kernels_[static_cast<std::size_t>(index)].get();
  }
  const TileKernel& base() const { return *kernels_[0]; }

 private:
  TileLadder() = default;
  static std::unique_ptr<const TileLadder> Build(std::int64_t k, std::int64_t n, std::int64_t ldx,
                                                 DType dtype);

  std::array<std::unique_ptr<const TileKernel>, kHeights> kernels_;
};

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_GEMM_TILE_LADDER_H_
