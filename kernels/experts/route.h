// SPDX-License-Identifier: Apache-2.0
//
// Routing of a mixture of experts: each row goes to the experts of highest probability under the
// softmax of its router logits (Shazeer et al. 2017, as OLMoE and LLaDA-MoE have it). In f32, with
// the exponential of kernels/base/elementary.h and sums in ascending order of experts. Pure; a
// row's result depends on that row alone and is the same on every instruction set.
#ifndef MASKKV_KERNELS_EXPERTS_ROUTE_H_
#define MASKKV_KERNELS_EXPERTS_ROUTE_H_

#include <cstdint>

namespace maskkv::kernels {

struct RouteShape {
  std::int64_t experts = 0;   // >= 1
  std::int64_t per_row = 0;   // from 1 to experts
  bool renormalised = false;  // divide a row's weights by their sum
};

// logits: (rows, experts), row stride ld >= experts. rows == 0 does nothing.
// chosen: (rows, per_row), the experts of highest probability, equal ones by the lower number, each
// row in ascending order. weights: (rows, per_row), their probabilities; renormalised: divided by
// their sum.
// A row with NaN, with +infinity or with -infinity alone gives the first experts and NaN as
// weights, so that what is wrong shows in the row and in no other.
// Relative error of a weight: at most (2 d + experts + 12) * 2^-24 with d the largest distance of a
// logit from the row's maximum, twice that and per_row * 2^-24 more if renormalised; an exponential
// that leaves the range of f32 counts as 0.
void RouteRows(const RouteShape& shape, const float* logits, std::int64_t rows, std::int64_t ld,
               std::int32_t* chosen, float* weights);

// The slow twin: f64 throughout, a full sort, weights rounded once.
void RouteRowsRef(const RouteShape& shape, const float* logits, std::int64_t rows, std::int64_t ld,
                  std::int32_t* chosen, float* weights);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_EXPERTS_ROUTE_H_
