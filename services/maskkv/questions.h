// SPDX-License-Identifier: Apache-2.0
//
// Files of questions: one JSON object a line with "document" and "question" and, where accuracy is
// counted, "answer" and "kind". Pure, apart from reading the file.
#ifndef MASKKV_SERVICES_MASKKV_QUESTIONS_H_
#define MASKKV_SERVICES_MASKKV_QUESTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace maskkv::cli {

struct Question {
  std::string document;
  std::string question;
  std::string answer;  // empty when not given
  std::string kind;    // empty when not given
};

// At most `limit` questions; limit 0 takes all. need_answers: "answer" and "kind" must be there.
// Errors: NOT_FOUND (file), INVALID_ARGUMENT naming file, line and field.
absl::StatusOr<std::vector<Question>> ReadQuestions(const std::string& path, std::int64_t limit,
                                                    bool need_answers);

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_QUESTIONS_H_
