// SPDX-License-Identifier: Apache-2.0
//
// TileKernel: one matrix product of fixed shape, y (rows, n) = x (rows, k) w (k, n) with w packed
// as the kernel likes it, run on the calling thread. Two makers: oneDNN (onednn_tile.h) and, for
// machines where it has no product of bf16 or no exact one of bytes, our own register blocks
// (block_tile.h). Immutable and thread safe: all that a run changes is in the caller's TileRunner.
// The only header that shows oneDNN types.
#ifndef MASKKV_KERNELS_GEMM_TILE_KERNEL_H_
#define MASKKV_KERNELS_GEMM_TILE_KERNEL_H_

#include <cstddef>
#include <cstdint>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <unordered_map>

#include "kernels/base/aligned_buffer.h"
#include "kernels/base/dtype.h"

namespace maskkv::kernels {

class TileRunner;

// x: (rows, k) of `dtype`, row stride ldx elements. y: (rows, n) f32, row stride ldy elements.
// kInt8: x unsigned bytes, w signed bytes, y s32.
struct TileShape {
  std::int64_t rows, k, n, ldx, ldy;
  DType dtype;
};

class TileKernel {
 public:
  virtual ~TileKernel() = default;

  virtual std::size_t packed_bytes() const = 0;
  // How the packed bytes are laid out, as text: kernels of equal texts read the same packed bytes,
  // in this process and in any other of the same oneDNN version.
  virtual std::string WeightsLayout() const = 0;

  // Converts w, (n, k) row-major as a checkpoint stores it, row stride ldw elements, of the
  // kernel's dtype, into packed_bytes() at `packed` (64-byte aligned).
  virtual void PackWeights(const void* w, std::int64_t ldw, void* packed,
                           TileRunner& runner) const = 0;

  // REQUIRES: packed was written by PackWeights of a kernel of the same WeightsLayout(); the
  // calling thread runs OpenMP single threaded (WorkerPool sees to it).
  virtual void Run(const void* x, const void* packed, void* y, TileRunner& runner) const = 0;
};

// What one worker needs to run kernels: scratch memory, and of oneDNN a stream and argument
// objects, which cost more to make than a small product takes. Used by one thread at a time.
// REQUIRES: kernels that ran here outlive the runner (TileLadder keeps them for the process's
// life).
class TileRunner {
 public:
  // oneDNN's of one kernel.
  struct Arguments {
    dnnl::memory x, weights, y, scratch;
  };

  TileRunner();
  TileRunner(TileRunner&&) noexcept = default;
  TileRunner& operator=(TileRunner&&) noexcept = default;

  // At least so many, 64-byte aligned; what a run leaves there is lost to the next.
  std::byte* Scratch(std::int64_t bytes) {
    if (bytes > scratch_.size()) scratch_.Resize(bytes);
    return scratch_.data();
  }
  std::int64_t bytes() const { return scratch_.capacity_bytes(); }

  dnnl::stream& stream() { return stream_; }
  std::unordered_map<const TileKernel*, Arguments>& arguments() { return arguments_; }

 private:
  dnnl::stream stream_;
  AlignedBuffer<std::byte> scratch_;
  std::unordered_map<const TileKernel*, Arguments> arguments_;
};

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_GEMM_TILE_KERNEL_H_
