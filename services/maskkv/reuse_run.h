// SPDX-License-Identifier: Apache-2.0
//
// One document and its questions, answered in every way that `maskkv reuse` compares. Not thread
// safe.
#ifndef MASKKV_SERVICES_MASKKV_REUSE_RUN_H_
#define MASKKV_SERVICES_MASKKV_REUSE_RUN_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/engine/eviction_plan.h"
#include "core/engine/generate_params.h"
#include "services/maskkv/model_host.h"
#include "services/maskkv/questions.h"
#include "services/maskkv/reuse_modes.h"

namespace maskkv::cli {

// Consecutive questions of a file about the same document, in their order.
struct DocumentQuestions {
  std::string document;
  std::vector<Question> questions;
};
std::vector<DocumentQuestions> ByDocument(std::vector<Question> questions);

// One mode and budget, and what was measured over all later questions.
struct ReuseCell {
  ReuseMode mode;
  std::int64_t budget = 0;  // 0: the mode has none
  engine::EvictionPlan plan;

  std::int64_t questions = 0;
  std::int64_t correct = 0;
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> kinds;  // questions, correct
  double document_bytes = 0;   // held for a document between questions, summed over questions
  double question_bytes = 0;   // made for a question beside them
  double prepare_seconds = 0;  // from the question to the first step
  double decode_seconds = 0;
  // kOver, where kAgain has the same budget: pairs that a new prefill keeps, and those of them that
  // the vote over the copy keeps too.
  std::int64_t pairs_again = 0;
  std::int64_t pairs_shared = 0;
  std::string outcomes;  // '1' or '0' a question
};

struct ReuseSetup {
  std::vector<std::string> generic;  // generic questions
  std::int64_t earlier = 1;          // questions of a document that come before those counted
  engine::GenerateParams params;
};

// Answers the document's later questions for every cell, one cell after the other, each question
// beginning with another one. The host's transformer is made for as many positions as they need.
// Errors: INVALID_ARGUMENT (fewer questions than `earlier` and one more, or than a mode's voters),
// of the engine; CANCELLED when interrupted.
absl::Status AskAboutDocument(ModelHost& host, const ReuseSetup& setup,
                              const DocumentQuestions& document, std::vector<ReuseCell>& cells);

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_REUSE_RUN_H_
