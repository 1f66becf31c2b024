// SPDX-License-Identifier: Apache-2.0
//
// What the masks of an answer became that fills in between given tokens. Pure function.
#ifndef MASKKV_SERVICES_DECODE_FILLED_SPANS_H_
#define MASKKV_SERVICES_DECODE_FILLED_SPANS_H_

#include <cstdint>
#include <span>

#include "services/common/model_runtime.h"

namespace maskkv::v1 {
class Finished;
}

namespace maskkv::decode {

// Adds a span for each run of masks in `canvas`, what the answer started with (empty: nothing but
// masks). REQUIRES: finished.tokens is the whole canvas.
void FillSpans(std::span<const std::int32_t> canvas, const services::ModelRuntime& model,
               v1::Finished& finished);

}  // namespace maskkv::decode

#endif  // MASKKV_SERVICES_DECODE_FILLED_SPANS_H_
