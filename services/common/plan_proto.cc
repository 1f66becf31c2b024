// SPDX-License-Identifier: Apache-2.0
#include "services/common/plan_proto.h"

#include <cmath>
#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "maskkv/v1/budget.pb.h"

namespace maskkv::services {
namespace {

constexpr double kNanosASecond = 1e9;

absl::Status Missing(std::string_view reason, std::string_view message, std::string_view field,
                     std::string_view expected) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason,
                   absl::StrFormat("%s.%s: expected %s, found none", message, field, expected),
                   {{"field", std::string(field)}});
}

// The oneof that Plan and Policy share. A coverage of 0 is not "a count": it is refused as such.
template <typename Message, typename Value>
absl::Status ReadAmount(const Message& message, std::string_view reason, std::string_view name,
                        Value& value) {
  switch (message.amount_case()) {
    case Message::kBudget:
      value.budget = message.budget();
      value.coverage = 0;
      return absl::OkStatus();
    case Message::kCoverage:
      value.budget = message.max_budget();
      value.coverage = message.coverage();
      if (value.coverage > 0) return absl::OkStatus();
      return MakeError(absl::StatusCode::kInvalidArgument, reason,
                       absl::StrFormat("%s.coverage: expected over 0 and at most 1, found %g", name,
                                       value.coverage),
                       {{"field", "coverage"}});
    default:
      return Missing(reason, name, "amount", "budget or coverage");
  }
}

template <typename Message, typename Value>
void FillAmount(const Value& value, Message& message) {
  if (value.coverage > 0) {
    message.set_coverage(value.coverage);
  } else {
    message.set_budget(value.budget);
  }
}

void FillSeen(const budget::PrefillObservation& seen, v1::ReportRequest& message) {
  v1::PrefillObservation& prefill = *message.mutable_prefill();
  prefill.set_model_fingerprint(seen.model_fingerprint);
  prefill.set_prefills(seen.prefills);
  prefill.set_mass(seen.mass);
  prefill.mutable_layer_mass()->Assign(seen.layer_mass.begin(), seen.layer_mass.end());
  prefill.mutable_preference()->Assign(seen.preference.begin(), seen.preference.end());
  prefill.set_queue_seconds(seen.queue_seconds);
  prefill.set_waiting(seen.waiting);
}

void FillSeen(const budget::DecodeObservation& seen, v1::ReportRequest& message) {
  v1::DecodeObservation& decode = *message.mutable_decode();
  decode.set_queue_seconds(seen.queue_seconds);
  decode.set_waiting(seen.waiting);
  decode.set_running(seen.running);
}

void FillSeen(const budget::CacheObservation& seen, v1::ReportRequest& message) {
  v1::CacheObservation& cache = *message.mutable_cache();
  cache.set_capacity_bytes(seen.capacity_bytes);
  cache.set_allocated_bytes(seen.allocated_bytes);
  cache.set_leased_bytes(seen.leased_bytes);
  cache.set_refused(seen.refused);
  cache.set_evicted(seen.evicted);
}

}  // namespace

void FillPlan(const budget::Plan& plan, v1::Plan& message) {
  message.set_generation(plan.generation);
  message.set_model_fingerprint(plan.model_fingerprint);
  FillAmount(plan, message);
  message.set_max_budget(plan.max_budget);
  message.set_alpha(plan.alpha);
  message.set_beta(plan.beta);
  message.mutable_layer_weights()->Assign(plan.layer_weights.begin(), plan.layer_weights.end());
  message.mutable_importance()->Assign(plan.importance.begin(), plan.importance.end());
  message.mutable_head_rates()->Assign(plan.head_rates.begin(), plan.head_rates.end());
  message.set_cause(plan.cause);
}

void FillPolicy(const budget::Policy& policy, v1::Policy& message) {
  FillAmount(policy, message);
  message.set_min_budget(policy.min_budget);
  message.set_max_budget(policy.max_budget);
  message.set_alpha(policy.alpha);
  message.set_beta(policy.beta);
  message.set_adapt_budget(policy.adapt_budget);
  message.set_adapt_shares(policy.adapt_shares);
  message.set_target_mass(policy.target_mass);
}

void FillReport(const budget::Observation& observation, v1::ReportRequest& message) {
  message.set_reporter(observation.reporter);
  const double whole = std::floor(observation.period_seconds);
  message.mutable_period()->set_seconds(static_cast<std::int64_t>(whole));
  message.mutable_period()->set_nanos(
      static_cast<std::int32_t>((observation.period_seconds - whole) * kNanosASecond));
  std::visit([&](const auto& seen) { FillSeen(seen, message); }, observation.seen);
}

absl::StatusOr<budget::Plan> ReadPlan(const v1::Plan& message) {
  budget::Plan plan;
  MASKKV_RETURN_IF_ERROR(ReadAmount(message, "BAD_PLAN", "plan", plan));
  plan.generation = message.generation();
  plan.model_fingerprint = message.model_fingerprint();
  plan.max_budget = message.max_budget();
  plan.alpha = message.alpha();
  plan.beta = message.beta();
  plan.layer_weights.assign(message.layer_weights().begin(), message.layer_weights().end());
  plan.importance.assign(message.importance().begin(), message.importance().end());
  plan.head_rates.assign(message.head_rates().begin(), message.head_rates().end());
  plan.cause = message.cause();
  MASKKV_RETURN_IF_ERROR(budget::Validate(plan));
  return plan;
}

absl::StatusOr<budget::Policy> ReadPolicy(const v1::Policy& message) {
  budget::Policy policy;
  MASKKV_RETURN_IF_ERROR(ReadAmount(message, "BAD_POLICY", "policy", policy));
  policy.min_budget = message.min_budget();
  policy.max_budget = message.max_budget();
  policy.alpha = message.alpha();
  policy.beta = message.beta();
  policy.adapt_budget = message.adapt_budget();
  policy.adapt_shares = message.adapt_shares();
  policy.target_mass = message.target_mass();
  MASKKV_RETURN_IF_ERROR(budget::Validate(policy));
  return policy;
}

absl::StatusOr<budget::Observation> ReadReport(const v1::ReportRequest& message) {
  budget::Observation observation;
  observation.reporter = message.reporter();
  observation.period_seconds =
      static_cast<double>(message.period().seconds()) + message.period().nanos() / kNanosASecond;
  switch (message.observation_case()) {
    case v1::ReportRequest::kPrefill: {
      const v1::PrefillObservation& seen = message.prefill();
      observation.seen = budget::PrefillObservation{
          .model_fingerprint = seen.model_fingerprint(),
          .prefills = seen.prefills(),
          .mass = seen.mass(),
          .layer_mass = {seen.layer_mass().begin(), seen.layer_mass().end()},
          .preference = {seen.preference().begin(), seen.preference().end()},
          .queue_seconds = seen.queue_seconds(),
          .waiting = seen.waiting()};
      break;
    }
    case v1::ReportRequest::kDecode:
      observation.seen =
          budget::DecodeObservation{.queue_seconds = message.decode().queue_seconds(),
                                    .waiting = message.decode().waiting(),
                                    .running = message.decode().running()};
      break;
    case v1::ReportRequest::kCache:
      observation.seen =
          budget::CacheObservation{.capacity_bytes = message.cache().capacity_bytes(),
                                   .allocated_bytes = message.cache().allocated_bytes(),
                                   .leased_bytes = message.cache().leased_bytes(),
                                   .refused = message.cache().refused(),
                                   .evicted = message.cache().evicted()};
      break;
    default:
      return Missing("BAD_REPORT", "report", "observation", "prefill, decode or cache");
  }
  MASKKV_RETURN_IF_ERROR(budget::Validate(observation));
  return observation;
}

}  // namespace maskkv::services
