// SPDX-License-Identifier: Apache-2.0
//
// Prompts before they are ids: what the command line and the services agree on, so that the same
// document and question are the same tokens everywhere. Pure functions.
#ifndef MASKKV_SERVICES_COMMON_PROMPT_TEXT_H_
#define MASKKV_SERVICES_COMMON_PROMPT_TEXT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "core/model/config.h"
#include "core/model/tokenizer.h"

namespace maskkv::services {

// The message that document and question make: the question after an empty line.
std::string DocumentAndQuestion(std::string_view document, std::string_view question);

// The ids that end an answer: the checkpoint's eos, then the tokenizer's end of turn if there is a
// tokenizer (it may be null) and it has one.
std::vector<std::int32_t> StopIds(const model::ModelConfig& config,
                                  const model::Tokenizer* tokenizer);

// Errors: INVALID_ARGUMENT (BAD_UTF8) with the offset of the first byte that is none; `name` says
// of what.
absl::Status CheckUtf8(std::string_view name, std::string_view text);

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_PROMPT_TEXT_H_
