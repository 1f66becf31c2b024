// SPDX-License-Identifier: Apache-2.0
//
// What a sub-layer adds to the residual stream: one f32 addition an element. Pure.
#ifndef MASKKV_KERNELS_ACTIVATION_ADD_H_
#define MASKKV_KERNELS_ACTIVATION_ADD_H_

#include <cstdint>

namespace maskkv::kernels {

// target[i] += source[i] for i < count. The two do not overlap. count == 0 does nothing.
void AddInto(const float* source, std::int64_t count, float* target);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_ACTIVATION_ADD_H_
