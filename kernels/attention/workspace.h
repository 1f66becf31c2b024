// SPDX-License-Identifier: Apache-2.0
//
// Scratch memory of the attention kernels. The caller keeps one for as long as it likes and hands
// it to every call: memory only grows, to the largest shape seen, so that a decoding step allocates
// nothing. Contents mean nothing between calls. Not thread safe: one call at a time; the kernels
// share it out among the workers of their pool.
#ifndef MASKKV_KERNELS_ATTENTION_WORKSPACE_H_
#define MASKKV_KERNELS_ATTENTION_WORKSPACE_H_

#include "kernels/base/aligned_buffer.h"

namespace maskkv::kernels {

struct AttentionWorkspace {
  AlignedBuffer<float> scratch;
};

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_ATTENTION_WORKSPACE_H_
