// SPDX-License-Identifier: Apache-2.0
//
// Which pairs a prefill keeps: a request's own fields (a policy by name among them), then the
// budget controller's plan, then the importance profile, then built-in defaults. What a selection
// does not use stays at its default, so that equal outcomes have equal cache keys. Pure.
#ifndef MASKKV_SERVICES_PREFILL_KEEP_RESOLUTION_H_
#define MASKKV_SERVICES_PREFILL_KEEP_RESOLUTION_H_

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/budget/plan.h"
#include "core/engine/eviction_plan.h"
#include "core/model/config.h"
#include "core/policy/profile.h"
#include "kernels/base/dtype.h"

namespace maskkv::v1 {
class KeepPolicy;
}

namespace maskkv::prefill {

struct KeepSources {
  std::int64_t layers = 0;
  std::int64_t kv_heads = 0;
  std::string_view model_fingerprint;
  const budget::Plan* plan = nullptr;                  // of the controller; null without one
  const policy::ImportanceProfile* profile = nullptr;  // of this model; null without one
  kernels::DType kv_dtype = kernels::DType::kF32;      // of pairs, where a request says nothing
};

struct ResolvedKeep {
  engine::EvictionPlan plan;
  // Of the controller's plan that was looked at; 0 if there was none for this model.
  std::uint64_t plan_generation = 0;
  // The amount is the plan's: what the controller learns from.
  bool plan_amount = false;
  kernels::DType kv_dtype = kernels::DType::kF32;  // of the entry's pairs

  // B; 0 under a coverage target or when everything is kept.
  std::int64_t budget() const;
};

// Whether the plan's numbers fit this model: its fingerprint is this model's or empty, its vectors
// have this model's sizes, its values are valid. One that does not is as if it were not there.
bool FitsModel(const budget::Plan& plan, const KeepSources& sources);

// keep: null if the request says nothing.
// Errors: INVALID_ARGUMENT (BAD_KEEP) naming the field; FAILED_PRECONDITION (NO_PROFILE) if the
// request wants the profile's importance and there is none.
absl::StatusOr<ResolvedKeep> ResolveKeep(const v1::KeepPolicy* keep, const KeepSources& sources);

}  // namespace maskkv::prefill

#endif  // MASKKV_SERVICES_PREFILL_KEEP_RESOLUTION_H_
