// SPDX-License-Identifier: Apache-2.0
//
// PanelProduct: the packed panels of a matrix and the product of one row tile with one panel, on
// the calling thread. MatMul and the vocabulary head loop over it. A panel's `in` is summed in
// slabs of at most kSlab: oneDNN sums a slab in registers, slabs are added in ascending order
// (longer sums make its bf16 kernels block, which costs more than the additions). Where oneDNN has
// no bf16 product or no exact one of bytes our own kernels take its place (block_tile.h). Where
// these cannot run either, below AVX2, weights are kept in f32: bf16 rounded, in twice the memory,
// int8 as integers in four times the memory and slabs so short that f32 sums are exact, which gives
// the same bits. Immutable and thread safe once it has its packed bytes.
#ifndef MASKKV_KERNELS_GEMM_PANEL_PRODUCT_H_
#define MASKKV_KERNELS_GEMM_PANEL_PRODUCT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/aligned_buffer.h"
#include "kernels/base/dtype.h"
#include "kernels/gemm/packed_matrix.h"
#include "kernels/gemm/quantise.h"
#include "kernels/gemm/tile_ladder.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::kernels {

// One worker's scratch: a row of x on its way into a tile, the finished tile and the slab being
// added to it; the same two in integers.
struct WorkerScratch {
  AlignedBuffer<float> row;
  AlignedBuffer<float> tile;
  AlignedBuffer<float> slab;
  AlignedBuffer<std::int32_t> sums;
  AlignedBuffer<std::int32_t> slab_sums;
  TileRunner runner;

  std::int64_t bytes() const {
    return row.capacity_bytes() + tile.capacity_bytes() + slab.capacity_bytes() +
           sums.capacity_bytes() + slab_sums.capacity_bytes() + runner.bytes();
  }
};

class PanelProduct {
 public:
  // The longest slab of `in`.
  static constexpr std::int64_t kSlab = 4096;

  // As PackedMatrix::Plan.
  static std::unique_ptr<PanelProduct> Plan(WorkerPool& pool, std::int64_t out, std::int64_t in,
                                            DType compute);
  // As those of PackedMatrix.
  std::string Layout() const;
  void Pack(WorkerPool& pool, std::span<const MatrixSource> parts, std::byte* packed);
  void Borrow(const std::byte* packed) { packed_ = packed; }

  std::int64_t out() const { return out_; }
  std::int64_t in() const { return in_; }
  DType compute() const { return compute_; }
  // What weights and tiles of x are stored as: compute() (of x kInt8: bytes + kInt8Offset), or kF32
  // holding rounded values where nothing multiplies bf16 or bytes.
  DType storage() const { return storage_; }
  std::int64_t bytes() const {
    const auto scales = static_cast<std::int64_t>(sizeof(float) + sizeof(std::int32_t));
    return panels() * panel_stride_ + (compute_ == DType::kInt8 ? out_ * scales : 0);
  }
  const std::byte* packed() const { return packed_; }

  std::int64_t panels() const { return (out_ + panel_width_ - 1) / panel_width_; }
  std::int64_t PanelBegin(std::int64_t panel) const { return panel * panel_width_; }
  std::int64_t PanelWidth(std::int64_t panel) const {
    return panel + 1 == panels() ? out_ - PanelBegin(panel) : panel_width_;
  }

  // Allowed tile heights, ascending, multiples of the first.
  std::span<const std::int64_t> heights() const { return heights_; }
  // The smallest allowed height >= rows, or the tallest there is.
  std::int64_t HeightFor(std::int64_t rows) const;

  // tile = x W_panel^T. x: (height, in) of storage(), contiguous; row_scales: (height) of an int8
  // matrix's x, not read by others. Returns (height, PanelWidth(panel)) f32, contiguous, inside
  // scratch.tile, until the next call with that scratch. REQUIRES: height is one of heights().
  float* Multiply(std::int64_t panel, std::int64_t height, const void* x, const float* row_scales,
                  WorkerScratch& scratch) const;

  // Of an int8 matrix the sums alone, inside scratch.sums; StoreSums makes outputs of them.
  const std::int32_t* MultiplyIntegers(std::int64_t panel, std::int64_t height, const void* x,
                                       WorkerScratch& scratch) const;
  ColumnScales ScalesOf(std::int64_t panel) const;

 private:
  PanelProduct(std::int64_t out, std::int64_t in, DType compute);
  void CutSlabs(std::int64_t longest);
  bool FindLadders(DType storage, TileMaker maker);
  bool FindLaddersOfStep(std::int64_t step, TileMaker maker);
  void FindHeights();
  void PackPanel(std::int64_t panel, std::span<const MatrixSource> parts, std::byte* packed,
                 WorkerScratch& scratch) const;
  void QuantisePanel(std::int64_t panel, std::byte* packed, AlignedBuffer<std::byte>& rows) const;
  const TileLadder& LadderOf(std::int64_t panel, std::int64_t slab) const;
  const std::byte* PackedAt(std::int64_t panel, std::int64_t slab) const {
    return packed_ + panel * panel_stride_ + slab * slab_stride_;
  }
  std::int64_t SlabBegin(std::int64_t slab) const { return slab * slab_; }
  std::int64_t SlabLength(std::int64_t slab) const {
    return slab + 1 == slabs_ ? in_ - SlabBegin(slab) : slab_;
  }

  std::int64_t out_;
  std::int64_t in_;
  DType compute_;
  DType storage_;
  std::int64_t panel_width_ = 0;
  std::int64_t slabs_ = 0;
  std::int64_t slab_ = 0;  // length of every slab but the last
  std::int64_t step_ = 0;  // heights are multiples of it
  // By [last panel?][last slab?]; owned by TileLadder.
  const TileLadder* ladders_[2][2] = {};
  std::vector<std::int64_t> heights_;
  std::int64_t slab_stride_ = 0;   // bytes of a packed slab, padded to 64
  std::int64_t panel_stride_ = 0;  // bytes of a packed panel
  // Panels; of int8, (out) scales and (out) offsets after them. Of PackedMatrix or its borrower.
  const std::byte* packed_ = nullptr;
};

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_GEMM_PANEL_PRODUCT_H_
