// SPDX-License-Identifier: Apache-2.0
//
// What is inside a GemmWorkspace, and the rows of x cut into tiles that a PanelProduct accepts:
// padded to a tile height, in the matrix's storage type, contiguous. Rows that already are such a
// tile are used where they lie. Shared by MatMul and the vocabulary head.
#ifndef MASKKV_KERNELS_GEMM_GEMM_SCRATCH_H_
#define MASKKV_KERNELS_GEMM_GEMM_SCRATCH_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/base/aligned_buffer.h"
#include "kernels/base/function_ref.h"
#include "kernels/gemm/matmul.h"
#include "kernels/gemm/panel_product.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::kernels {

struct GemmWorkspace::Impl {
  std::vector<WorkerScratch> workers;
  AlignedBuffer<std::byte> input;  // tiles of x that had to be converted, moved or padded
};

// A view of the tiles of one call; valid while x and the workspace's input are left alone.
class InputTiles {
 public:
  // in_place: x if its rows are one (rows, in) block, which f32 products may read where it is;
  // else null. tile_rows: one of product.heights(); every tile but the last has it. REQUIRES:
  // scratch has every worker of the pool.
  InputTiles(WorkerPool& pool, const PanelProduct& product, RowSource x, std::int64_t rows,
             const float* in_place, std::int64_t tile_rows, GemmWorkspace::Impl& scratch);

  std::int64_t count() const { return (rows_ + tile_rows_ - 1) / tile_rows_; }
  std::int64_t Begin(std::int64_t tile) const { return tile * tile_rows_; }
  // Rows of the call in a tile, and the height to multiply it with.
  std::int64_t Rows(std::int64_t tile) const {
    return tile + 1 == count() ? rows_ - Begin(tile) : tile_rows_;
  }
  std::int64_t Height(std::int64_t tile) const {
    return tile + 1 == count() ? last_height_ : tile_rows_;
  }
  // Of an int8 matrix: the scales of the tile's rows, (Height(tile)).
  const float* Scales(std::int64_t tile) const {
    return scales_ == nullptr ? nullptr : scales_ + Begin(tile);
  }
  const void* Data(std::int64_t tile) const {
    return Begin(tile) < copied_from_ ? in_place_ + Begin(tile) * row_bytes_
                                      : copied_ + (Begin(tile) - copied_from_) * row_bytes_;
  }

 private:
  std::int64_t rows_;
  std::int64_t tile_rows_;
  std::int64_t last_height_;
  std::int64_t row_bytes_;
  std::int64_t copied_from_;  // rows before it are read in place
  const std::byte* in_place_;
  const std::byte* copied_;
  const float* scales_;  // (rows of all tiles) at the end of the workspace's input, or null
};

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_GEMM_GEMM_SCRATCH_H_
