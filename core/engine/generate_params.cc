// SPDX-License-Identifier: Apache-2.0
#include "core/engine/generate_params.h"

#include <cmath>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/decoding/guidance.h"

namespace maskkv::engine {
namespace {

absl::Status OutOfRange(const char* name, std::int64_t found) {
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: expected 1 to %d, found %d", name, kMaxLength, found));
}

constexpr std::int64_t kUsualBlockLength = 8;

// What has no definition together.
absl::Status CheckCombination(const GenerateParams& params) {
  if (params.guided() && (params.refreshes() || params.caches_response() || params.grows() ||
                          decoding::IsMixed(params.rule.rule))) {
    return absl::InvalidArgumentError(
        absl::StrFormat("cfg_scale: expected 0 with refresh_every, refresh_floor, response_every, "
                        "growth or rule remix, found %g",
                        params.cfg_scale));
  }
  if (params.whole_canvas && params.guided()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "cfg_scale: expected 0 where the whole canvas is the answer (a canvas or a suffix was "
        "given), found %g",
        params.cfg_scale));
  }
  if (params.whole_canvas && params.grows()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("growth.max_gen_length: expected 0 where the whole canvas is the answer (a "
                        "canvas or a suffix was given), found %d",
                        params.growth.max_gen_length));
  }
  if (params.automaton != nullptr && params.grows()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("growth.max_gen_length: expected 0 with an automaton, found %d",
                        params.growth.max_gen_length));
  }
  return absl::OkStatus();
}

}  // namespace

std::int64_t DefaultBlockLength(decoding::Rule rule, std::int64_t gen_length) {
  const bool blocks = decoding::HasBlocks(rule) && gen_length % kUsualBlockLength == 0;
  return blocks ? kUsualBlockLength : gen_length;
}

absl::Status CheckStepsAreRead(decoding::Rule rule, std::int64_t steps) {
  if (steps == 0 || decoding::IsScheduled(rule)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "steps: expected none with rule %s, which runs until nothing is masked, found %d",
      decoding::Name(rule), steps));
}

absl::Status Validate(const GenerateParams& params) {
  if (params.gen_length < 1 || params.gen_length > kMaxLength) {
    return OutOfRange("gen_length", params.gen_length);
  }
  if (params.block_length < 1 || params.block_length > kMaxLength) {
    return OutOfRange("block_length", params.block_length);
  }
  const bool scheduled = decoding::IsScheduled(params.rule.rule);
  if (scheduled && (params.steps < 1 || params.steps > kMaxLength)) {
    return OutOfRange("steps", params.steps);
  }
  if (params.gen_length % params.block_length != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("gen_length: expected a multiple of block_length %d, found %d",
                        params.block_length, params.gen_length));
  }
  if (scheduled && params.steps % params.blocks() != 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "steps: expected a multiple of the %d blocks (gen_length / block_length), found %d",
        params.blocks(), params.steps));
  }
  if (!std::isfinite(params.temperature) || params.temperature < 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "temperature: expected a finite number >= 0, found %g", params.temperature));
  }
  if (params.suppress_eos && params.stop_ids.empty()) {
    return absl::InvalidArgumentError(
        "suppress_eos: expected an eos id among stop_ids, found none");
  }
  if (params.growth.max_gen_length != 0 && (params.stop_ids.empty() || params.suppress_eos)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("growth.max_gen_length: expected 0 %s, found %d",
                        params.suppress_eos ? "with suppress_eos" : "without an eos id",
                        params.growth.max_gen_length));
  }
  if (absl::Status growth = Validate(params.growth, params.gen_length, params.block_length);
      !growth.ok()) {
    return growth;
  }
  if (params.refresh_every < 0 || params.refresh_every > kMaxLength) {
    return absl::InvalidArgumentError(absl::StrFormat("refresh_every: expected 0 to %d, found %d",
                                                      kMaxLength, params.refresh_every));
  }
  if (!(params.refresh_floor >= 0 && params.refresh_floor <= 1)) {  // true for NaN
    return absl::InvalidArgumentError(
        absl::StrFormat("refresh_floor: expected 0 to 1, found %g", params.refresh_floor));
  }
  if (params.response_every < 0 || params.response_every > kMaxLength) {
    return absl::InvalidArgumentError(absl::StrFormat("response_every: expected 0 to %d, found %d",
                                                      kMaxLength, params.response_every));
  }
  if (!(params.response_share > 0 && params.response_share <= 1)) {  // true for NaN
    return absl::InvalidArgumentError(absl::StrFormat(
        "response_share: expected above 0, at most 1, found %g", params.response_share));
  }
  if (!(params.cfg_scale >= 0 && params.cfg_scale <= decoding::kMostGuidance)) {  // true for NaN
    return absl::InvalidArgumentError(absl::StrFormat("cfg_scale: expected 0 to %g, found %g",
                                                      decoding::kMostGuidance, params.cfg_scale));
  }
  MASKKV_RETURN_IF_ERROR(CheckCombination(params));
  return decoding::Validate(params.rule);
}

std::string_view Name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "none";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
  }
  return "none";
}

}  // namespace maskkv::engine
