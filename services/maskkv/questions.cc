// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/questions.h"

#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "services/maskkv/input.h"

namespace maskkv::cli {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 30;

absl::Status ReadField(const nlohmann::json& object, const std::string& where, const char* field,
                       bool required, std::string& value) {
  const auto it = object.find(field);
  if (it == object.end() && !required) return absl::OkStatus();
  if (it == object.end() || !it->is_string()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: field %s: expected a string, found %s", where, field,
                        it == object.end() ? "nothing" : it->type_name()));
  }
  value = it->get<std::string>();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<Question>> ReadQuestions(const std::string& path, std::int64_t limit,
                                                    bool need_answers) {
  MASKKV_ASSIGN_OR_RETURN(const std::string text, ReadInput(path, kMaxFileBytes));
  std::istringstream lines(text);
  std::vector<Question> questions;
  std::int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.empty()) continue;
    if (limit > 0 && static_cast<std::int64_t>(questions.size()) == limit) break;
    const std::string where = absl::StrFormat("%s: line %d", path, number);
    const nlohmann::json object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s: expected a JSON object, found %s", where,
                          object.is_discarded() ? "no JSON" : object.type_name()));
    }
    Question& question = questions.emplace_back();
    MASKKV_RETURN_IF_ERROR(ReadField(object, where, "document", true, question.document));
    MASKKV_RETURN_IF_ERROR(ReadField(object, where, "question", true, question.question));
    MASKKV_RETURN_IF_ERROR(ReadField(object, where, "answer", need_answers, question.answer));
    MASKKV_RETURN_IF_ERROR(ReadField(object, where, "kind", need_answers, question.kind));
  }
  if (questions.empty()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: expected at least one question, found none", path));
  }
  return questions;
}

}  // namespace maskkv::cli
