// SPDX-License-Identifier: Apache-2.0
//
// What maskkv evaluate measures: one cell for each prompt cache and way of decoding. Plain values
// and how they are shown.
#ifndef MASKKV_SERVICES_MASKKV_EVALUATION_CELL_H_
#define MASKKV_SERVICES_MASKKV_EVALUATION_CELL_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "core/engine/eviction_plan.h"
#include "core/engine/generate_params.h"
#include "nlohmann/json_fwd.hpp"
#include "services/maskkv/common_flags.h"

namespace maskkv::cli {

// What is kept of a prompt: one entry, which serves every rule.
struct KeptPrompt {
  CacheFlags flags;
  engine::EvictionPlan plan;  // unused without a cache
  double mass = 0;            // sum of kept mass over questions

  bool HasCache() const { return flags.mode() != CacheMode::kNone; }
  bool HasBudget() const {
    return flags.mode() == CacheMode::kMaskKv || flags.mode() == CacheMode::kRandom;
  }
};

// One configuration and its counts by kind of question.
struct Cell {
  std::size_t kept = 0;  // index of its KeptPrompt
  engine::GenerateParams params;
  struct Count {
    std::int64_t questions = 0;
    std::int64_t correct = 0;
  };
  std::map<std::string, Count> by_kind;
  std::string outcomes;          // a question each: '1' if the answer was correct, else '0'
  std::int64_t steps = 0;        // that follow are sums over questions
  std::int64_t rows = 0;         // recomputed prompt and response
  std::int64_t reused_rows = 0;  // of the response cache
  std::int64_t committed = 0;    // positions decided
  double seconds = 0;            // of the steps; where cells are decoded one by one
  std::int64_t refreshes = 0;
  double refresh_seconds = 0;  // of the prefills
};

// An object of `cells` in docs/evaluate.schema.json. timed: seconds were measured.
// REQUIRES: at least one question, which took a step.
nlohmann::ordered_json CellJson(const Cell& cell, const KeptPrompt& kept, bool timed);

// The same as a line on standard output.
void PrintCell(const nlohmann::ordered_json& cell);

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_EVALUATION_CELL_H_
