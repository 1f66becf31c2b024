// SPDX-License-Identifier: Apache-2.0
#include "services/decode/reuse.h"

#include "absl/strings/str_format.h"
#include "core/base/error.h"

namespace maskkv::decode {

absl::StatusOr<Reusable> ReusablePairs(const arena::EntryMetadata& entry,
                                       std::span<const std::int32_t> ids,
                                       std::span<const std::int32_t> suffix,
                                       std::int64_t gen_length) {
  const auto mismatch = [](std::string_view message) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "HANDLE_PROMPT_MISMATCH", message);
  };
  // K and V depend on the number of masks: attention is bidirectional.
  if (entry.masks != gen_length) {
    return mismatch(absl::StrFormat("handle: expected an entry for gen_length %d, found %d",
                                    gen_length, entry.masks));
  }
  const auto tokens = static_cast<std::int64_t>(ids.size());
  if (entry.prompt_tokens == tokens && entry.prompt_digest == arena::TokenDigest(ids) &&
      entry.suffix_tokens == std::ssize(suffix) &&
      (suffix.empty() || entry.suffix_digest == arena::TokenDigest(suffix))) {
    return Reusable{.whole = true};
  }
  if (entry.document_tokens == 0) {
    return mismatch("handle: expected an entry of a prompt with a document, found one without");
  }
  if (entry.document_tokens > tokens ||
      entry.document_digest !=
          arena::TokenDigest(ids.first(static_cast<std::size_t>(entry.document_tokens)))) {
    return mismatch("handle: expected an entry of the same document, found another's");
  }
  return Reusable{.positions = entry.document_tokens};
}

}  // namespace maskkv::decode
