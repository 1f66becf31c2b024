// SPDX-License-Identifier: Apache-2.0
//
// TileKernel: one oneDNN matrix product of fixed shape, y (rows, n) = x (rows, k) w (k, n) with
// w blocked as oneDNN likes it, run on the calling thread. The only header that shows oneDNN types;
// its source file catches oneDNN's exceptions. Immutable and thread safe: all that a run changes is
// in the caller's TileRunner.
#ifndef MASKKV_KERNELS_GEMM_TILE_KERNEL_H_
#define MASKKV_KERNELS_GEMM_TILE_KERNEL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <unordered_map>

#include "kernels/base/aligned_buffer.h"
#include "kernels/base/dtype.h"

namespace maskkv::kernels {

class TileRunner;

class TileKernel {
 public:
  // x: (rows, k) of `dtype`, row stride ldx elements. y: (rows, n) f32, row stride ldy elements.
  // kInt8: x unsigned bytes, w signed bytes, y s32.
  // Returns null when oneDNN has no such product on this machine (bf16 below AVX-512).
  static std::unique_ptr<const TileKernel> Create(std::int64_t rows, std::int64_t k, std::int64_t n,
                                                  std::int64_t ldx, std::int64_t ldy, DType dtype);

  // Two kernels read the same packed bytes.
  bool SharesWeightsWith(const TileKernel& other) const;
  std::size_t packed_bytes() const;
  // How the packed bytes are laid out, as text: kernels of equal texts share weights, in this
  // process and in any other of the same oneDNN version.
  std::string WeightsLayout() const;

  // Converts w, (n, k) row-major as a checkpoint stores it, row stride ldw elements, of the
  // kernel's dtype, into packed_bytes() at `packed` (64-byte aligned).
  void PackWeights(const void* w, std::int64_t ldw, void* packed, TileRunner& runner) const;

  // REQUIRES: packed was written by PackWeights of a kernel that SharesWeightsWith this one; the
  // calling thread runs OpenMP single threaded (WorkerPool sees to it).
  void Run(const void* x, const void* packed, void* y, TileRunner& runner) const;

 private:
  friend class TileRunner;
  TileKernel(const dnnl::matmul::primitive_desc& desc, std::int64_t k, std::int64_t n, DType dtype);

  dnnl::matmul::primitive_desc desc_;
  dnnl::matmul matmul_;
  std::int64_t k_;
  std::int64_t n_;
  DType dtype_;
};

// What one worker needs to run kernels: a stream, scratch memory, and oneDNN's argument objects,
// which cost more to make than a small product takes. Used by one thread at a time. REQUIRES:
// kernels that ran here outlive the runner (TileLadder keeps them for the process's life).
class TileRunner {
 public:
  TileRunner();
  TileRunner(TileRunner&&) noexcept = default;
  TileRunner& operator=(TileRunner&&) noexcept = default;

  std::int64_t bytes() const { return scratch_.capacity_bytes(); }

 private:
  friend class TileKernel;
  struct Arguments {
    dnnl::memory x, weights, y, scratch;
  };
  Arguments& ArgumentsOf(const TileKernel& kernel);

  dnnl::stream stream_;
  AlignedBuffer<std::byte> scratch_;
  std::unordered_map<const TileKernel*, Arguments> arguments_;
};

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_GEMM_TILE_KERNEL_H_
