// SPDX-License-Identifier: Apache-2.0
//
// TileKernels of our own for machines with AVX2 and FMA where oneDNN has no product of bf16 or no
// exact one of bytes: w stays as narrow as it is in memory and is widened in registers
// (register_block.h). bf16 is multiplied and summed in f32, int8 in s32, exactly, so an int8
// result is the same bits as by any other exact product.
//
// w is cut along k into lengths of kBlockDepth and each of those into blocks of kBlockColumns,
// packed in the order in which a run reads them; columns that are missing in the last block are
// zeros. Of each length the rows of x are widened once, into the runner's scratch memory, and
// multiplied with all blocks. Sums wait in y from one length to the next: the same chain, so a row
// of y depends on its row of x alone (ADR 1).
#ifndef MASKKV_KERNELS_GEMM_BLOCK_TILE_H_
#define MASKKV_KERNELS_GEMM_BLOCK_TILE_H_

#include <cstdint>
#include <memory>

#include "kernels/gemm/tile_kernel.h"

namespace maskkv::kernels {

// A block of w of this length and the rows of x beside it fit a first-level cache.
inline constexpr std::int64_t kBlockDepth = 512;

// Null for f32, which oneDNN multiplies everywhere, and where the machine or ONEDNN_MAX_CPU_ISA
// lacks AVX2 and FMA.
std::unique_ptr<const TileKernel> MakeBlockTile(const TileShape& shape);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_GEMM_BLOCK_TILE_H_
