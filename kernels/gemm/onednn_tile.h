// SPDX-License-Identifier: Apache-2.0
//
// TileKernels by oneDNN's matmul primitive, with w in the blocked layout that oneDNN asks for. Its
// source file catches oneDNN's exceptions.
#ifndef MASKKV_KERNELS_GEMM_ONEDNN_TILE_H_
#define MASKKV_KERNELS_GEMM_ONEDNN_TILE_H_

#include <memory>

#include "kernels/gemm/tile_kernel.h"

namespace maskkv::kernels {

// Null when oneDNN has no such product on this machine (bf16 below AVX-512). Its product of bytes
// may be inexact: without VNNI it saturates sums of two products.
std::unique_ptr<const TileKernel> MakeOneDnnTile(const TileShape& shape);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_GEMM_ONEDNN_TILE_H_
