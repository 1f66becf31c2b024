// SPDX-License-Identifier: Apache-2.0
//
// What a step says about one masked position of a canvas. A plain value.
#ifndef MASKKV_CORE_DECODING_PREDICTION_H_
#define MASKKV_CORE_DECODING_PREDICTION_H_

#include <cstdint>

namespace maskkv::decoding {

struct Prediction {
  std::int64_t position = 0;  // in the canvas, 0-based
  std::int32_t token = 0;
  float confidence = 0;       // softmax(raw logits)[token]: what callers are told
  float log_probability = 0;  // its natural logarithm, taken before rounding; finite
  // What a rule ranks by (rule.h), higher is surer; `confidence` itself for the rules that read the
  // raw probability. Never NaN.
  float score = 0;
};

}  // namespace maskkv::decoding

#endif  // MASKKV_CORE_DECODING_PREDICTION_H_
