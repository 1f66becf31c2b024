// SPDX-License-Identifier: Apache-2.0
//
// Events of sequences as messages of the API. Pure functions.
#ifndef MASKKV_SERVICES_DECODE_EVENT_PROTO_H_
#define MASKKV_SERVICES_DECODE_EVENT_PROTO_H_

#include <cstdint>

#include "services/decode/event_queue.h"

namespace maskkv::v1 {
class Finished;
class Step;
}  // namespace maskkv::v1

namespace maskkv::decode {

// What a request knows when one of its samples ends, besides the sample itself.
struct RequestFigures {
  std::int64_t prompt_tokens = 0;
  std::int64_t kept_pairs = 0;
  std::uint64_t entry_bytes = 0;
  std::uint64_t full_bytes = 0;
  double queue_ms = 0;  // without the sample's wait for its place
  double prefill_ms = 0;
  double map_ms = 0;
  double first_token_ms = 0;
  double total_ms = 0;
};

void FillStep(std::size_t sample, const StepUpdate& update, v1::Step& step);

// REQUIRES: end.status is OK.
void FillFinished(std::size_t sample, const SequenceEnd& end, const RequestFigures& figures,
                  v1::Finished& finished);

}  // namespace maskkv::decode

#endif  // MASKKV_SERVICES_DECODE_EVENT_PROTO_H_
