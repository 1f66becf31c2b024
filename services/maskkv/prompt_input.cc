// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/prompt_input.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "services/common/prompt_text.h"
#include "services/maskkv/input.h"

namespace maskkv::cli {
namespace {

constexpr std::size_t kMaxDocumentBytes = std::size_t{256} << 20;

absl::StatusOr<std::vector<std::int32_t>> ParseIds(const std::string& path,
                                                   const std::string& text) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_array()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: expected a JSON array of token ids, found %s", path,
                        json.is_discarded() ? "no JSON" : json.type_name()));
  }
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const nlohmann::json& value = json[i];
    // A nested value is named by its type: it may be too deep to print.
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > INT32_MAX) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "%s: element %d: expected a token id from 0 to %d, found %.40s", path, i, INT32_MAX,
          value.is_structured() ? value.type_name() : value.dump(-1, ' ', true)));
    }
    ids.push_back(static_cast<std::int32_t>(value.get<std::uint64_t>()));
  }
  return ids;
}

}  // namespace

absl::StatusOr<std::vector<std::int32_t>> ReadIds(const PromptFlags& flags) {
  MASKKV_ASSIGN_OR_RETURN(const std::string text, ReadInput(flags.prompt_ids, kMaxDocumentBytes));
  return ParseIds(flags.prompt_ids, text);
}

absl::StatusOr<std::string> ReadDocument(const PromptFlags& flags) {
  MASKKV_ASSIGN_OR_RETURN(std::string document, ReadInput(flags.document, kMaxDocumentBytes));
  MASKKV_RETURN_IF_ERROR(services::CheckUtf8(flags.document, document));
  MASKKV_RETURN_IF_ERROR(services::CheckUtf8("--question", flags.question));
  return document;
}

}  // namespace maskkv::cli
