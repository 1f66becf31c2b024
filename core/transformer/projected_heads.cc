// SPDX-License-Identifier: Apache-2.0
#include "core/transformer/projected_heads.h"

#include <algorithm>

#include "core/transformer/row_ranges.h"
#include "kernels/activation/bias.h"
#include "kernels/base/dtype.h"
#include "kernels/norm/rms_norm.h"

namespace maskkv::transformer {
namespace {

// Rows [begin, end), counted from at.first.
void Rotate(const ProjectedHeads& part, const HeadRows& at, std::int64_t begin, std::int64_t end) {
  std::int64_t run_begin = -at.first;
  for (const RopeRun& run : at.rotations) {
    const std::int64_t from = std::max(begin, run_begin);
    const std::int64_t to = std::min(end, run_begin + run.rows);
    if (from < to) {
      kernels::ApplyRope(*run.table, at.positions + at.first + from, part.x + from * part.ld,
                         to - from, part.ld, part.heads);
    }
    run_begin += run.rows;
  }
}

}  // namespace

void FinishHeads(kernels::WorkerPool& pool, std::span<const ProjectedHeads> parts,
                 const HeadRows& at, std::int64_t head_dim, float norm_eps, bool to_bf16) {
  ForRowRanges(pool, at.rows, [&](std::int64_t begin, std::int64_t end) {
    for (const ProjectedHeads& part : parts) {
      float* const x = part.x + begin * part.ld;
      const std::int64_t width = part.heads * head_dim;
      if (!part.bias.empty()) {
        kernels::AddBias(part.bias.data(), end - begin, width, x, part.ld);
      }
      for (std::int64_t row = 0; !part.norm.empty() && row < end - begin; ++row) {
        kernels::RmsNorm(x + row * part.ld, part.heads, head_dim, head_dim, part.norm.data(),
                         norm_eps, x + row * part.ld, head_dim);
      }
      if (part.rotated) Rotate(part, at, begin, end);
      for (std::int64_t row = 0; to_bf16 && row < end - begin; ++row) {
        kernels::RoundToBf16InPlace(x + row * part.ld, width);
      }
    }
  });
}

}  // namespace maskkv::transformer
