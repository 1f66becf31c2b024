// SPDX-License-Identifier: Apache-2.0
// Compiled with -mavx512f (CMakeLists.txt); run only where lane_kernels.cc has found it.
#include "kernels/attention/lane_avx512.inc"
#include "kernels/attention/lane_sets.h"
#include "kernels/attention/lane_units.inc"

namespace maskkv::kernels {

const LaneKernels kAvx512LaneKernels = {"avx512", Attend<Avx512>, Attend<Avx512>,
                                        PackQueries<Avx512>, Score<Avx512>};
const LaneKernels kAvx512Bf16LaneKernels = {"avx512_bf16", Attend<Avx512>, AttendBf16Avx512,
                                            PackQueries<Avx512>, Score<Avx512>};

}  // namespace maskkv::kernels
