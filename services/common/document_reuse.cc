// SPDX-License-Identifier: Apache-2.0
#include "services/common/document_reuse.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"

namespace maskkv::services {
namespace {

absl::Status Mismatch(std::string_view message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "HANDLE_PROMPT_MISMATCH", message);
}

// K and V depend on the number of masks: attention is bidirectional.
absl::Status CheckMasks(const arena::EntryMetadata& entry, std::int64_t masks) {
  if (entry.masks == masks) return absl::OkStatus();
  return Mismatch(
      absl::StrFormat("handle: expected an entry for gen_length %d, found %d", masks, entry.masks));
}

absl::StatusOr<std::int64_t> CommonDocument(const arena::EntryMetadata& entry,
                                            std::span<const std::int32_t> ids) {
  if (entry.document_tokens == 0) {
    return Mismatch("handle: expected an entry of a prompt with a document, found one without");
  }
  if (entry.document_tokens > std::ssize(ids) ||
      entry.document_digest !=
          arena::TokenDigest(ids.first(static_cast<std::size_t>(entry.document_tokens)))) {
    return Mismatch("handle: expected an entry of the same document, found another's");
  }
  return entry.document_tokens;
}

// Neither prompt's own tail: the entry has no pairs of its prompt's, and ours is computed.
std::int64_t WithoutTails(std::int64_t positions, const arena::EntryMetadata& entry,
                          std::span<const std::int32_t> ids, std::int64_t servable) {
  const std::int64_t tail = std::ssize(ids) - servable;
  return std::min({positions, servable, entry.prompt_tokens - tail});
}

}  // namespace

absl::StatusOr<Reusable> ReusablePairs(const arena::EntryMetadata& entry,
                                       std::span<const std::int32_t> ids,
                                       std::span<const std::int32_t> suffix, std::int64_t masks,
                                       std::int64_t servable) {
  MASKKV_RETURN_IF_ERROR(CheckMasks(entry, masks));
  if (entry.prompt_tokens == std::ssize(ids) && entry.prompt_digest == arena::TokenDigest(ids) &&
      entry.suffix_tokens == std::ssize(suffix) &&
      (suffix.empty() || entry.suffix_digest == arena::TokenDigest(suffix))) {
    return Reusable{.whole = true};
  }
  MASKKV_ASSIGN_OR_RETURN(const std::int64_t document, CommonDocument(entry, ids));
  return Reusable{.positions = WithoutTails(document, entry, ids, servable)};
}

absl::StatusOr<std::int64_t> DocumentPositions(const arena::EntryMetadata& entry,
                                               std::span<const std::int32_t> ids,
                                               std::int64_t masks, std::int64_t servable) {
  MASKKV_RETURN_IF_ERROR(CheckMasks(entry, masks));
  MASKKV_ASSIGN_OR_RETURN(const std::int64_t document, CommonDocument(entry, ids));
  return WithoutTails(document, entry, ids, servable);
}

}  // namespace maskkv::services
