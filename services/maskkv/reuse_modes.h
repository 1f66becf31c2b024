// SPDX-License-Identifier: Apache-2.0
//
// Ways to answer a later question about a document, as `maskkv reuse --modes` names them:
//
//   again                       a prefill of document and question
//   all[@COPY]                  over every pair of the document's copy
//   over[@COPY]                 over what the question's own vote over the copy keeps
//   COMBINATION:VOTERS[@COPY]   over what others' votes over the copy keep of the document
//
// COMBINATION is sum, union (the highest score), intersection (the lowest) or wide (union, with the
// budget once for each voter); VOTERS earlierN (the document's first N questions), genericN (the
// first N generic questions) or none (no question). COPY says which question was in place when the
// document was computed: first, generic or none; by default that of the voters, else first.
#ifndef MASKKV_SERVICES_MASKKV_REUSE_MODES_H_
#define MASKKV_SERVICES_MASKKV_REUSE_MODES_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/engine/document_vote.h"

namespace maskkv::cli {

enum class ReuseKind : std::uint8_t { kAgain, kAll, kOver, kVoted };
enum class QuestionSource : std::uint8_t { kFirst, kGeneric, kNone };

struct ReuseMode {
  std::string name;  // as it was given
  ReuseKind kind = ReuseKind::kAgain;
  QuestionSource copy = QuestionSource::kFirst;

  // kVoted.
  QuestionSource voters = QuestionSource::kFirst;
  std::int64_t count = 1;  // of voters
  engine::VoteCombination combination = engine::VoteCombination::kSum;
  bool wide = false;  // the budget once for each voter

  bool HasBudget() const { return kind != ReuseKind::kAll; }
};

// Errors: INVALID_ARGUMENT: what was expected, the text that was found.
absl::StatusOr<ReuseMode> ParseReuseMode(std::string_view text);

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_REUSE_MODES_H_
