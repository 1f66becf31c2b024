// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/evaluation_cell.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/decoding/rule_spec.h"
#include "core/policy/named_policy.h"

namespace maskkv::cli {

using Json = nlohmann::ordered_json;

Json CellJson(const Cell& cell, const KeptPrompt& kept, bool timed) {
  Json kinds = Json::object();
  std::int64_t questions = 0, correct = 0;
  for (const auto& [kind, count] : cell.by_kind) {
    kinds[kind] = {{"questions", count.questions}, {"correct", count.correct}};
    questions += count.questions;
    correct += count.correct;
  }
  const bool scheduled = decoding::IsScheduled(cell.params.rule.rule);
  const bool caches = cell.params.caches_response();
  return {
      {"cache", kept.flags.policy.empty() ? kept.flags.cache : "policy"},
      {"policy", kept.HasCache() ? Json(policy::PolicyName(kept.plan.Parts())) : Json(nullptr)},
      {"budget", kept.HasBudget() ? Json(kept.flags.budget) : Json(nullptr)},
      {"rule", decoding::RuleSpec(cell.params.rule)},
      {"block_length", cell.params.block_length},
      {"schedule", scheduled ? Json(cell.params.steps) : Json(nullptr)},
      {"response_every", caches ? Json(cell.params.response_every) : Json(nullptr)},
      {"response_share", caches ? Json(cell.params.response_share) : Json(nullptr)},
      {"questions", questions},
      {"correct", correct},
      {"steps", cell.steps},
      {"rows", cell.rows},
      {"reused_rows", cell.reused_rows},
      {"committed", cell.committed},
      {"tokens_per_step", static_cast<double>(cell.committed) / static_cast<double>(cell.steps)},
      {"seconds", timed ? Json(cell.seconds) : Json(nullptr)},
      {"refreshes", cell.refreshes},
      {"refresh_seconds", cell.refresh_seconds},
      {"kept_mass", kept.mass / static_cast<double>(questions)},
      {"kinds", std::move(kinds)},
      {"outcomes", cell.outcomes}};
}

void PrintCell(const Json& cell) {
  const Json& name = cell[cell["cache"] == "policy" ? "policy" : "cache"];
  std::printf("%-7s %6s ", name.get<std::string>().c_str(),
              cell["budget"].is_null() ? "" : cell["budget"].dump().c_str());
  if (!cell["seconds"].is_null()) {
    if (!cell["response_every"].is_null()) {
      std::printf("rows anew every %s, %s between ", cell["response_every"].dump().c_str(),
                  cell["response_share"].dump().c_str());
    }
    std::printf("%-16s %4s %7lld steps, %8lld rows, %8.3f s, %5.2f tokens a step, ",
                cell["rule"].get<std::string>().c_str(),
                cell["schedule"].is_null() ? "" : cell["schedule"].dump().c_str(),
                cell["steps"].get<long long>(), cell["rows"].get<long long>(),
                cell["seconds"].get<double>(), cell["tokens_per_step"].get<double>());
  }
  std::printf(" %5.1f %% of %lld, kept mass %.3f ",
              100 * cell["correct"].get<double>() / cell["questions"].get<double>(),
              cell["questions"].get<long long>(), cell["kept_mass"].get<double>());
  for (const auto& [kind, count] : cell["kinds"].items()) {
    std::printf(" %s %.3f", kind.c_str(),
                count["correct"].get<double>() / count["questions"].get<double>());
  }
  std::printf("\n");
}

}  // namespace maskkv::cli
