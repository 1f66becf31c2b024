// SPDX-License-Identifier: Apache-2.0
#include "services/common/model_runtime.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "core/telemetry/log.h"
#include "kernels/parallel/worker_pool.h"
#include "services/common/memory.h"

namespace maskkv::services {
namespace {

arena::Digest DigestOfHex(std::string_view hex) {
  arena::Digest digest{};
  for (std::size_t i = 0; i < digest.size() && 2 * i + 1 < hex.size(); ++i) {
    unsigned value = 0;
    std::from_chars(hex.data() + 2 * i, hex.data() + 2 * i + 2, value, 16);
    digest[i] = static_cast<std::byte>(value);
  }
  return digest;
}

// The last component of a path, whether or not it ends in a slash.
std::string NameOf(const std::string& directory) {
  std::error_code failed;
  const std::filesystem::path path = std::filesystem::weakly_canonical(directory, failed);
  return (failed ? std::filesystem::path(directory) : path).filename().string();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const ModelRuntime>> ModelRuntime::Load(
    const ModelOptions& options) {
  std::shared_ptr<ModelRuntime> runtime(new ModelRuntime());
  MASKKV_ASSIGN_OR_RETURN(runtime->pool_, PlacePoolHere(options.placement));
  MASKKV_ASSIGN_OR_RETURN(model::Checkpoint checkpoint, model::Checkpoint::Open(options.directory));
  const model::ModelConfig config = checkpoint.config();
  if (options.max_positions < 0 || options.max_positions > model::ModelConfig::kMaxSequence) {
    return absl::InvalidArgumentError(absl::StrFormat("max_positions: expected 0 to %d, found %d",
                                                      model::ModelConfig::kMaxSequence,
                                                      options.max_positions));
  }
  runtime->max_positions_ = options.max_positions > 0
                                ? options.max_positions
                                : std::max(config.max_sequence, kLongestDefault);
  runtime->fingerprint_ = checkpoint.Fingerprint();
  runtime->fingerprint_digest_ = DigestOfHex(runtime->fingerprint_);
  runtime->name_ = NameOf(options.directory);
  MASKKV_RETURN_IF_ERROR(runtime->LoadWeights(std::move(checkpoint), options));
  if (options.check_memory && options.max_positions > 0) {
    MASKKV_RETURN_IF_ERROR(CheckFits(config, runtime->max_positions_, /*kv_layers=*/1));
  }
  MASKKV_RETURN_IF_ERROR(runtime->LoadText(options.directory));
  if (options.load_profile) MASKKV_RETURN_IF_ERROR(runtime->LoadProfile(options));
  return runtime;
}

absl::Status ModelRuntime::LoadWeights(model::Checkpoint checkpoint, const ModelOptions& options) {
  using telemetry::LogLevel;
  const auto start = std::chrono::steady_clock::now();
  kernels::WorkerPool pool(pool_);
  const kernels::WorkerPool::Seat seat(pool);
  const transformer::LoadOptions load{.compute = options.dtype,
                                      .cache_folder = options.weights_cache};
  MASKKV_ASSIGN_OR_RETURN(transformer::Weights weights,
                          transformer::Weights::Load(std::move(checkpoint), load, pool));
  weights_ = std::make_unique<transformer::Weights>(std::move(weights));
  const transformer::WeightsOrigin& origin = weights_->origin();
  for (const std::string& note : origin.notes) {
    telemetry::Log(LogLevel::kWarning, "weights_cache", {{"reason", note}});
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  telemetry::Log(LogLevel::kInfo, "weights_loaded",
                 {{"shared_file", origin.file ? origin.path : std::string()},
                  {"packed_here", !origin.file || origin.written},
                  {"bytes", weights_->packed_bytes()},
                  {"seconds", seconds.count()}});
  return absl::OkStatus();
}

absl::Status ModelRuntime::LoadProfile(const ModelOptions& options) {
  const std::string path = options.profile.empty()
                               ? options.directory + "/" + std::string(policy::kProfileFileName)
                               : options.profile;
  absl::StatusOr<policy::ImportanceProfile> profile = policy::LoadProfile(path);
  if (options.profile.empty() && absl::IsNotFound(profile.status())) return absl::OkStatus();
  MASKKV_RETURN_IF_ERROR(profile.status());
  if (profile->model_fingerprint != fingerprint_) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: field model_fingerprint: expected this checkpoint's %s, found %s: run "
                        "maskkv calibrate",
                        path, fingerprint_, profile->model_fingerprint));
  }
  if (static_cast<std::int64_t>(profile->importance.size()) != config().layers) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: field importance: expected %d layers, found %d", path, config().layers,
                        profile->importance.size()));
  }
  profile_ = *std::move(profile);
  return absl::OkStatus();
}

absl::Status ModelRuntime::CheckLength(std::int64_t prompt_tokens, std::int64_t masks) const {
  if (masks < 1) {
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_MASKS",
                     absl::StrFormat("masks: expected at least 1, found %d", masks));
  }
  if (masks <= max_positions_ && prompt_tokens <= max_positions_ - masks) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kInvalidArgument, "PROMPT_TOO_LONG",
      absl::StrFormat("prompt: expected at most %d positions with %d masks, found a prompt of %d "
                      "tokens",
                      max_positions_, masks, prompt_tokens),
      {{"max_positions", absl::StrFormat("%d", max_positions_)}});
}

}  // namespace maskkv::services
