// SPDX-License-Identifier: Apache-2.0
#include "services/budget/planned_model.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "core/model/checkpoint.h"
#include "core/policy/profile.h"

namespace maskkv::budget_service {
namespace {

absl::StatusOr<budget::PlannedModel> OfProfile(const std::string& path) {
  MASKKV_ASSIGN_OR_RETURN(policy::ImportanceProfile profile, policy::LoadProfile(path));
  return budget::PlannedModel{.fingerprint = std::move(profile.model_fingerprint),
                              .importance = std::move(profile.importance)};
}

}  // namespace

absl::StatusOr<budget::PlannedModel> LoadPlannedModel(const std::string& directory,
                                                      const std::string& profile) {
  if (directory.empty()) {
    if (profile.empty()) return budget::PlannedModel{};
    return OfProfile(profile);
  }
  MASKKV_ASSIGN_OR_RETURN(const model::Checkpoint checkpoint, model::Checkpoint::Open(directory));
  budget::PlannedModel model{.fingerprint = checkpoint.Fingerprint(),
                             .importance = {},
                             .layers = checkpoint.config().layers,
                             .kv_heads = checkpoint.config().kv_heads};
  const std::string path =
      profile.empty() ? directory + "/" + std::string(policy::kProfileFileName) : profile;
  absl::StatusOr<budget::PlannedModel> measured = OfProfile(path);
  if (profile.empty() && absl::IsNotFound(measured.status())) return model;
  MASKKV_RETURN_IF_ERROR(measured.status());
  if (measured->fingerprint != model.fingerprint) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "MODEL_MISMATCH",
                     absl::StrFormat("%s: field model_fingerprint: expected this checkpoint's %s, "
                                     "found %s: run maskkv calibrate",
                                     path, model.fingerprint, measured->fingerprint));
  }
  model.importance = std::move(measured->importance);
  return model;
}

}  // namespace maskkv::budget_service
