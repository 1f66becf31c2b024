// SPDX-License-Identifier: Apache-2.0
//
// What an earlier entry is worth to a new prompt under REUSE_KEPT. Pure function.
#ifndef MASKKV_SERVICES_DECODE_REUSE_H_
#define MASKKV_SERVICES_DECODE_REUSE_H_

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "core/arena/entry_metadata.h"

namespace maskkv::decode {

struct Reusable {
  bool whole = false;          // every pair serves, before and after the answer
  std::int64_t positions = 0;  // else those at the prompt's first so many positions
};

// Which kept pairs serve the prompt `ids` that goes on with `suffix` after the answer: all of them
// if the entry is of this very prompt, whatever its answer started with, else those of the document
// that both begin with. The rest of the prompt is to be recomputed in every step. Errors:
// FAILED_PRECONDITION (HANDLE_PROMPT_MISMATCH): another gen_length, another document, or the
// entry's prompt had no document.
absl::StatusOr<Reusable> ReusablePairs(const arena::EntryMetadata& entry,
                                       std::span<const std::int32_t> ids,
                                       std::span<const std::int32_t> suffix,
                                       std::int64_t gen_length);

}  // namespace maskkv::decode

#endif  // MASKKV_SERVICES_DECODE_REUSE_H_
