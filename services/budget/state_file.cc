// SPDX-License-Identifier: Apache-2.0
#include "services/budget/state_file.h"

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/file.h"
#include "core/base/status_macros.h"
#include "core/model/json_reader.h"
#include "nlohmann/json.hpp"
#include "services/budget/policy_json.h"

namespace maskkv::budget_service {
namespace {

using model::JsonField;

constexpr std::string_view kFormat = "maskkv budget state";
constexpr std::int64_t kVersion = 1;
constexpr std::int64_t kMostBytes = 64 << 20;
constexpr std::int64_t kAny = std::numeric_limits<std::int64_t>::max();

// Exactly the members that are named.
absl::Status CheckMembers(const JsonField& object, std::initializer_list<std::string_view> names) {
  MASKKV_RETURN_IF_ERROR(
      object.ForEachMember([&](const std::string& key, const JsonField& member) -> absl::Status {
        if (std::ranges::find(names, key) != names.end()) return absl::OkStatus();
        return member.Expected("no such field");
      }));
  for (const std::string_view name : names) MASKKV_RETURN_IF_ERROR(object.Get(name).status());
  return absl::OkStatus();
}

absl::Status Read(const JsonField& object, std::string_view name, std::int64_t& value) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, object.Get(name));
  MASKKV_ASSIGN_OR_RETURN(value, field.Integer(0, kAny));
  return absl::OkStatus();
}

absl::Status Read(const JsonField& object, std::string_view name, double& value) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, object.Get(name));
  MASKKV_ASSIGN_OR_RETURN(value, field.Number());
  return absl::OkStatus();
}

absl::Status Read(const JsonField& object, std::string_view name, bool& value) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, object.Get(name));
  MASKKV_ASSIGN_OR_RETURN(value, field.Bool());
  return absl::OkStatus();
}

absl::Status Read(const JsonField& object, std::string_view name, std::string& value) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, object.Get(name));
  MASKKV_ASSIGN_OR_RETURN(const std::string_view text, field.String());
  value = text;
  return absl::OkStatus();
}

absl::Status Read(const JsonField& object, std::string_view name, std::vector<double>& values) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, object.Get(name));
  return field.ForEachElement([&](const JsonField& element) -> absl::Status {
    MASKKV_ASSIGN_OR_RETURN(const double value, element.Number());
    values.push_back(value);
    return absl::OkStatus();
  });
}

absl::StatusOr<budget::Policy> ReadPolicy(const JsonField& object) {
  MASKKV_RETURN_IF_ERROR(
      CheckMembers(object, {"budget", "coverage", "min_budget", "max_budget", "alpha", "beta",
                            "adapt_budget", "adapt_shares", "target_mass"}));
  budget::Policy policy;
  MASKKV_RETURN_IF_ERROR(Read(object, "budget", policy.budget));
  MASKKV_RETURN_IF_ERROR(Read(object, "coverage", policy.coverage));
  MASKKV_RETURN_IF_ERROR(Read(object, "min_budget", policy.min_budget));
  MASKKV_RETURN_IF_ERROR(Read(object, "max_budget", policy.max_budget));
  MASKKV_RETURN_IF_ERROR(Read(object, "alpha", policy.alpha));
  MASKKV_RETURN_IF_ERROR(Read(object, "beta", policy.beta));
  MASKKV_RETURN_IF_ERROR(Read(object, "adapt_budget", policy.adapt_budget));
  MASKKV_RETURN_IF_ERROR(Read(object, "adapt_shares", policy.adapt_shares));
  MASKKV_RETURN_IF_ERROR(Read(object, "target_mass", policy.target_mass));
  MASKKV_RETURN_IF_ERROR(budget::Validate(policy));
  return policy;
}

absl::StatusOr<budget::Plan> ReadPlan(const JsonField& object) {
  MASKKV_RETURN_IF_ERROR(CheckMembers(
      object, {"generation", "model_fingerprint", "budget", "coverage", "max_budget", "alpha",
               "beta", "layer_weights", "importance", "head_rates", "cause"}));
  budget::Plan plan;
  std::int64_t generation = 0;
  MASKKV_RETURN_IF_ERROR(Read(object, "generation", generation));
  plan.generation = static_cast<std::uint64_t>(generation);
  MASKKV_RETURN_IF_ERROR(Read(object, "model_fingerprint", plan.model_fingerprint));
  MASKKV_RETURN_IF_ERROR(Read(object, "budget", plan.budget));
  MASKKV_RETURN_IF_ERROR(Read(object, "coverage", plan.coverage));
  MASKKV_RETURN_IF_ERROR(Read(object, "max_budget", plan.max_budget));
  MASKKV_RETURN_IF_ERROR(Read(object, "alpha", plan.alpha));
  MASKKV_RETURN_IF_ERROR(Read(object, "beta", plan.beta));
  MASKKV_RETURN_IF_ERROR(Read(object, "layer_weights", plan.layer_weights));
  MASKKV_RETURN_IF_ERROR(Read(object, "importance", plan.importance));
  MASKKV_RETURN_IF_ERROR(Read(object, "head_rates", plan.head_rates));
  MASKKV_RETURN_IF_ERROR(Read(object, "cause", plan.cause));
  MASKKV_RETURN_IF_ERROR(budget::Validate(plan));
  return plan;
}

// Looked at first: another version may have other fields.
absl::Status CheckFormat(const JsonField& root) {
  std::string format;
  MASKKV_RETURN_IF_ERROR(Read(root, "format", format));
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, root.Get("format"));
  if (format != kFormat) return field.Expected(absl::StrFormat("\"%s\"", kFormat));
  std::int64_t version = 0;
  MASKKV_RETURN_IF_ERROR(Read(root, "version", version));
  if (version == kVersion) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrFormat("%s: field version: expected %d, found %d", root.file(), kVersion, version));
}

// Messages of budget::Validate say "plan.alpha: ..." and know no file.
template <typename T>
absl::StatusOr<T> InFile(absl::StatusOr<T> value, const std::string& file) {
  if (value.ok() || value.status().message().substr(0, file.size()) == file) return value;
  return absl::Status(value.status().code(),
                      absl::StrFormat("%s: field %s", file, value.status().message()));
}

}  // namespace

nlohmann::ordered_json PolicyJson(const budget::Policy& policy) {
  return {{"budget", policy.budget},
          {"coverage", policy.coverage},
          {"min_budget", policy.min_budget},
          {"max_budget", policy.max_budget},
          {"alpha", policy.alpha},
          {"beta", policy.beta},
          {"adapt_budget", policy.adapt_budget},
          {"adapt_shares", policy.adapt_shares},
          {"target_mass", policy.target_mass}};
}

std::string FormatState(const SavedState& state) {
  const budget::Plan& plan = state.plan;
  nlohmann::ordered_json root;
  root["format"] = kFormat;
  root["version"] = kVersion;
  root["policy"] = PolicyJson(state.policy);
  root["plan"] = {{"generation", plan.generation},
                  {"model_fingerprint", plan.model_fingerprint},
                  {"budget", plan.budget},
                  {"coverage", plan.coverage},
                  {"max_budget", plan.max_budget},
                  {"alpha", plan.alpha},
                  {"beta", plan.beta},
                  {"layer_weights", plan.layer_weights},
                  {"importance", plan.importance},
                  {"head_rates", plan.head_rates},
                  {"cause", plan.cause}};
  return root.dump(2) + "\n";
}

absl::StatusOr<SavedState> ParseState(std::string_view text, const std::string& file) {
  MASKKV_ASSIGN_OR_RETURN(const model::JsonDocument document,
                          model::JsonDocument::Parse(text, file));
  const JsonField root = document.root();
  MASKKV_RETURN_IF_ERROR(CheckFormat(root));
  MASKKV_RETURN_IF_ERROR(CheckMembers(root, {"format", "version", "policy", "plan"}));
  SavedState state;
  MASKKV_ASSIGN_OR_RETURN(const JsonField policy, root.Get("policy"));
  MASKKV_ASSIGN_OR_RETURN(state.policy, InFile(ReadPolicy(policy), file));
  MASKKV_ASSIGN_OR_RETURN(const JsonField plan, root.Get("plan"));
  MASKKV_ASSIGN_OR_RETURN(state.plan, InFile(ReadPlan(plan), file));
  return state;
}

absl::StatusOr<std::optional<SavedState>> LoadState(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path, kMostBytes);
  if (text.status().code() == absl::StatusCode::kNotFound) return std::nullopt;
  MASKKV_RETURN_IF_ERROR(text.status());
  MASKKV_ASSIGN_OR_RETURN(SavedState state, ParseState(*text, path));
  return state;
}

absl::Status SaveState(const SavedState& state, const std::string& path) {
  return WriteFileAtomically(path, FormatState(state));
}

}  // namespace maskkv::budget_service
