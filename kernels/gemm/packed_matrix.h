// SPDX-License-Identifier: Apache-2.0
//
// PackedMatrix: the weights W (out, in) of y = x W^T, converted once into the blocked layout of
// the kernels that multiply it (tile_kernel.h) and cut into fixed column panels. Panels are the
// unit of parallel work and of streaming.
//
// A panel product sums over `in` in fixed slabs; inside a slab oneDNN chooses the order, and it may
// choose another one for another number of rows. So rows are cut into tiles of a few fixed heights,
// and a height is used only if a probe at packing time finds that it gives bit for bit what the
// base height gives at every place of the tile (see TileHeights). Hence the invariant: a row of y
// depends on its row of x and on W alone, not on the other rows of the call, its place, or the
// number of threads.
//
// Ownership: owns its packed bytes after Pack, does not after PackInto and Borrow; the sources may
// be freed after Pack. Immutable once it has its bytes: share freely between threads and pools.
// Movable only; a moved-from or default-made matrix is empty (0 x 0).
#ifndef MASKKV_KERNELS_GEMM_PACKED_MATRIX_H_
#define MASKKV_KERNELS_GEMM_PACKED_MATRIX_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "kernels/base/aligned_buffer.h"
#include "kernels/base/dtype.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::kernels {

// The tallest row tile. Calls of other heights are cut and zero-padded.
inline constexpr std::int64_t kRowTile = 64;
// The widest panel.
inline constexpr std::int64_t kMaxPanelWidth = 256;

// Some rows of a weight matrix as stored in a checkpoint.
struct MatrixSource {
  const void* data;  // (out, in) row-major, contiguous
  DType dtype;
  std::int64_t out;
};

class PanelProduct;

class PackedMatrix {
 public:
  PackedMatrix();
  PackedMatrix(PackedMatrix&&) noexcept;
  PackedMatrix& operator=(PackedMatrix&&) noexcept;
  ~PackedMatrix();

  // Stacks `parts` by rows (query | key | value, gate | up) and packs them for computing in
  // `compute`: kF32 widens bf16 sources exactly; kBF16 rounds f32 sources to the nearest bf16.
  // kInt8 quantises every row of W (quantise.h). Where the machine or ONEDNN_MAX_CPU_ISA has not
  // even AVX2, kBF16 keeps the rounded values in f32 (twice the bytes, the same inputs, so the same
  // result within the f32 summation error) and kInt8 its integers (four times the bytes, the same
  // bits of every result).
  // REQUIRES: in >= 1, every part's out >= 1, at least one part; kInt8: in <= kLongestInt8. Throws
  // std::bad_alloc.
  static PackedMatrix Pack(WorkerPool& pool, std::span<const MatrixSource> parts, std::int64_t in,
                           DType compute);

  // The same in steps, for callers who keep packed bytes where another process finds them. A
  // planned matrix has every figure below but no weights. REQUIRES: out >= 1, in >= 1.
  static PackedMatrix Plan(WorkerPool& pool, std::int64_t out, std::int64_t in, DType compute);
  // All that packed bytes depend on besides the weights, as text: shape, types, panels, oneDNN's
  // version, whose kernels and their blocks. Bytes of one matrix serve every other of the same
  // text.
  std::string Layout() const;
  // Packs into bytes() at `packed` (64-byte aligned), which this matrix borrows.
  // REQUIRES: parts of out() rows in all.
  void PackInto(WorkerPool& pool, std::span<const MatrixSource> parts, std::byte* packed);
  // Takes bytes that were packed by a matrix of the same Layout(), as they are. They must outlive
  // this matrix and not change. REQUIRES: 64-byte aligned.
  void Borrow(const std::byte* packed);
  // Where they are; null after Plan.
  const std::byte* packed() const;

  std::int64_t out() const;
  std::int64_t in() const;
  // What inputs are rounded to: the `compute` of Pack.
  DType dtype() const;
  // Of the packed weights, scales of int8 included.
  std::int64_t bytes() const;

  // Panels cover the columns [0, out()) of y in order, each at most kMaxPanelWidth wide.
  std::int64_t panels() const;
  std::int64_t PanelBegin(std::int64_t panel) const;
  std::int64_t PanelEnd(std::int64_t panel) const;

  // The tile heights that passed the probe for every panel, ascending; the first is the base
  // height.
  std::span<const std::int64_t> TileHeights() const;

  // The engine room, for kernels/gemm and kernels/head. REQUIRES: not empty.
  const PanelProduct& product() const { return *product_; }

 private:
  explicit PackedMatrix(std::unique_ptr<PanelProduct> product);

  std::unique_ptr<PanelProduct> product_;
  AlignedBuffer<std::byte> own_;
};

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_GEMM_PACKED_MATRIX_H_
