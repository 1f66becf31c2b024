// SPDX-License-Identifier: Apache-2.0
//
// Scratch memory of the attention kernels. The caller keeps one for as long as it likes and hands
// it to every call: memory only grows, to the largest shape seen, so that a decoding step allocates
// nothing. Contents mean nothing between calls. Not thread safe: one call at a time; the kernels
// share it out among the workers of their pool.
#ifndef MASKKV_KERNELS_ATTENTION_WORKSPACE_H_
#define MASKKV_KERNELS_ATTENTION_WORKSPACE_H_

#include <cstdint>
#include <vector>

#include "kernels/attention/lane_kernels.h"
#include "kernels/base/aligned_buffer.h"

namespace maskkv::kernels {

struct AttentionWorkspace {
  // The instruction set to use. Only tests and benches choose another than the best.
  const LaneKernels* lanes = &BestLaneKernels();

  AlignedBuffer<float> scratch;       // a slice for each worker
  AlignedBuffer<float> packed_q;      // mask queries of every head
  std::vector<std::int64_t> borders;  // first work unit of each request

  std::int64_t bytes() const {
    return scratch.capacity_bytes() + packed_q.capacity_bytes() +
           static_cast<std::int64_t>(borders.capacity() * sizeof(std::int64_t));
  }
};

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_ATTENTION_WORKSPACE_H_
