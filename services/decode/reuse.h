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

// Prompt positions, from the first, whose kept pairs serve the prompt `ids`: all of them if the
// entry is of this very prompt, else those of the document that both begin with. The rest of the
// prompt is to be recomputed in every step. Errors: FAILED_PRECONDITION (HANDLE_PROMPT_MISMATCH):
// another gen_length, another document, or the entry's prompt had no document.
absl::StatusOr<std::int64_t> ReusablePositions(const arena::EntryMetadata& entry,
                                               std::span<const std::int32_t> ids,
                                               std::int64_t gen_length);

}  // namespace maskkv::decode

#endif  // MASKKV_SERVICES_DECODE_REUSE_H_
