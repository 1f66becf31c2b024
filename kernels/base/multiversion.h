// SPDX-License-Identifier: Apache-2.0
//
// Run-time choice of instruction set. A function marked MASKKV_MULTIVERSION is compiled three times
// (AVX-512, AVX2 + FMA, baseline x86-64) and the dynamic loader binds the widest version that the
// machine runs, so one binary serves every machine and nothing is built with -march=native.
//
// The versions must return the same bits: write element-wise arithmetic, or sums over a fixed
// number of lanes (kLanes) that are combined in a fixed order. The build has -ffp-contract=off;
// where a fused multiply-add is meant, say std::fma (one rounding in every version; the baseline
// calls libm). Helpers called from such a function must be inlined into it (lambdas and small
// inline functions are) or they run the baseline version.
//
// The macro is empty under sanitizers, whose run time is not up when the loader resolves the
// choice, and under clang, whose versioning differs: those builds check correctness, not speed.
#ifndef MASKKV_KERNELS_BASE_MULTIVERSION_H_
#define MASKKV_KERNELS_BASE_MULTIVERSION_H_

#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define MASKKV_MULTIVERSION \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MASKKV_MULTIVERSION
#endif

namespace maskkv::kernels {

// Lanes of a sum whose value may not depend on the instruction set: one 512-bit register of f32.
inline constexpr std::int64_t kLanes = 16;

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_BASE_MULTIVERSION_H_
