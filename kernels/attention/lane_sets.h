// SPDX-License-Identifier: Apache-2.0
//
// The sets of lane kernels that exist, one a source. Internal: use BestLaneKernels().
#ifndef MASKKV_KERNELS_ATTENTION_LANE_SETS_H_
#define MASKKV_KERNELS_ATTENTION_LANE_SETS_H_

#include "kernels/attention/lane_kernels.h"

namespace maskkv::kernels {

// Constant-initialised; the first two exist on x86-64 only.
extern const LaneKernels kAvx512LaneKernels;
extern const LaneKernels kAvx2LaneKernels;
extern const LaneKernels kPortableLaneKernels;

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_ATTENTION_LANE_SETS_H_
