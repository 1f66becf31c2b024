// SPDX-License-Identifier: Apache-2.0
//
// The inner product of block_tile.h: some rows of x with one block of columns of w, sums in
// registers. Every element is one chain over ascending k (bf16: of FMAs in f32, int8: of whole
// numbers modulo 2^32), whatever the number of rows, so how rows are cut into blocks and a chain
// into calls changes no bit.
//
// Layout of w, one k after the other. bf16: the 16 columns as eight 32-bit words, word j has column
// j in its lower half and column j + 8 in its upper half, so that a shift and a mask widen a load
// to both f32 vectors. int8: for every two values of k each column's two bytes side by side, which
// widened to 16 bits are what the multiply-add of pairs takes.
#ifndef MASKKV_KERNELS_GEMM_REGISTER_BLOCK_H_
#define MASKKV_KERNELS_GEMM_REGISTER_BLOCK_H_

#include <cstdint>

namespace maskkv::kernels {

// Plain structs and raw pointers only: the source of the kernels is compiled for an instruction set
// that the machine may lack, so it must not instantiate inline functions that others share.

inline constexpr std::int64_t kBlockColumns = 16;
// With two vectors of sums a row, one of x and two of w: all sixteen registers.
inline constexpr std::int64_t kBlockRows = 6;

struct RegisterBlock {
  const void* x;  // (rows, k): f32, or 16-bit integers
  std::int64_t ldx;
  const void* w;  // (k, kBlockColumns) as above
  void* y;        // (rows, kBlockColumns): f32, or s32
  std::int64_t ldy;
  std::int64_t rows;  // 1 to kBlockRows
  std::int64_t k;     // of int8 even
  bool adds;          // the chains go on from y
};

// register_block_avx2.cc, on x86-64 only; need AVX2 and FMA.
void MultiplyBf16Avx2(const RegisterBlock& block);
void MultiplyInt8Avx2(const RegisterBlock& block);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_GEMM_REGISTER_BLOCK_H_
