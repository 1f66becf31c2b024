// SPDX-License-Identifier: Apache-2.0
//
// The prompt that flags name, as it was handed in: text or token ids. Functions without state.
#ifndef MASKKV_SERVICES_MASKKV_PROMPT_INPUT_H_
#define MASKKV_SERVICES_MASKKV_PROMPT_INPUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/maskkv/common_flags.h"

namespace maskkv::cli {

// The ids of the file --prompt-ids, a JSON array; each from 0 to 2^31 - 1, what the model thinks of
// them is not checked. Errors: of ReadInput; INVALID_ARGUMENT with file and element.
absl::StatusOr<std::vector<std::int32_t>> ReadIds(const PromptFlags& flags);

// The text of --document; --question has been checked too.
// Errors: of ReadInput; INVALID_ARGUMENT if one of the two is not UTF-8.
absl::StatusOr<std::string> ReadDocument(const PromptFlags& flags);

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_PROMPT_INPUT_H_
