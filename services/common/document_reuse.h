// SPDX-License-Identifier: Apache-2.0
//
// What an earlier entry is worth to a new prompt. Pure functions.
#ifndef MASKKV_SERVICES_COMMON_DOCUMENT_REUSE_H_
#define MASKKV_SERVICES_COMMON_DOCUMENT_REUSE_H_

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "core/arena/entry_metadata.h"

namespace maskkv::services {

// What an entry for so many masks serves of a prompt `ids`, of which any entry may serve the first
// `servable` (engine::ServableTokens). The rest of the prompt is to be computed. Errors of both:
// FAILED_PRECONDITION (HANDLE_PROMPT_MISMATCH): another number of masks, another document, or the
// entry's prompt had no document.

struct Reusable {
  bool whole = false;          // every pair serves, before and after the answer
  std::int64_t positions = 0;  // else those at the prompt's first so many positions
};

// REUSE_KEPT, where the prompt goes on with `suffix` after the answer: all of them if the entry is
// of this very prompt, whatever its answer started with, else those of the document that both begin
// with.
absl::StatusOr<Reusable> ReusablePairs(const arena::EntryMetadata& entry,
                                       std::span<const std::int32_t> ids,
                                       std::span<const std::int32_t> suffix, std::int64_t masks,
                                       std::int64_t servable);

// REUSE_VOTE_OVER: prompt positions, from the first: those of the document.
absl::StatusOr<std::int64_t> DocumentPositions(const arena::EntryMetadata& entry,
                                               std::span<const std::int32_t> ids,
                                               std::int64_t masks, std::int64_t servable);

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_DOCUMENT_REUSE_H_
