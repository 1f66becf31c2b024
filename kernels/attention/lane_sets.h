// SPDX-License-Identifier: Apache-2.0
//
// The sets of lane kernels that exist, one a source. Internal: use BestLaneKernels().
#ifndef MASKKV_KERNELS_ATTENTION_LANE_SETS_H_
#define MASKKV_KERNELS_ATTENTION_LANE_SETS_H_

#include "kernels/attention/lane_kernels.h"

namespace maskkv::kernels {

// Constant-initialised; all but the last exist on x86-64 only.
extern const LaneKernels kAvx512Bf16LaneKernels;
extern const LaneKernels kAvx512LaneKernels;
extern const LaneKernels kAvx2LaneKernels;
extern const LaneKernels kPortableLaneKernels;

// LaneKernels::attend_bf16 by the instruction for pairs of bf16 (lanes_avx512_bf16.cc).
void AttendBf16Avx512(const AttendUnit& unit);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_ATTENTION_LANE_SETS_H_
