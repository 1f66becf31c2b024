// SPDX-License-Identifier: Apache-2.0
//
// The slow twin of ProjectVocabulary with ArgmaxReducer: a whole row of logits in f64, then arg-max
// and softmax. It also tells how far the choice is from another one. Pure.
#ifndef MASKKV_KERNELS_HEAD_VOCAB_HEAD_REF_H_
#define MASKKV_KERNELS_HEAD_VOCAB_HEAD_REF_H_

#include <cstdint>
#include <span>

#include "kernels/base/dtype.h"

namespace maskkv::kernels {

struct RefChoice {
  std::int32_t token;  // -1: every id is forbidden
  double logit;
  double confidence;  // softmax over the allowed ids
  double margin;      // to the second largest allowed logit; infinity if there is none
  double
      largest_magnitude;  // over allowed ids, of sum_k |hidden_k| |w_k|: the scale of logit errors
};

// hidden: (in). w: (vocabulary, in) row-major. Both are rounded to `compute` first. forbidden:
// ascending.
RefChoice ChooseTokenRef(const float* hidden, std::int64_t in, const float* w,
                         std::int64_t vocabulary, DType compute,
                         std::span<const std::int32_t> forbidden);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_HEAD_VOCAB_HEAD_REF_H_
