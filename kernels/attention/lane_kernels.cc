// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/lane_kernels.h"

#include "kernels/attention/lane_sets.h"

namespace maskkv::kernels {

std::vector<const LaneKernels*> SupportedLaneKernels() {
  std::vector<const LaneKernels*> sets;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    sets.push_back(&kAvx512Bf16LaneKernels);
  }
  if (__builtin_cpu_supports("avx512f")) sets.push_back(&kAvx512LaneKernels);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    sets.push_back(&kAvx2LaneKernels);
  }
#endif
  sets.push_back(&kPortableLaneKernels);
  return sets;
}

const LaneKernels& BestLaneKernels() {
  static const LaneKernels& best = *SupportedLaneKernels().front();
  return best;
}

}  // namespace maskkv::kernels
