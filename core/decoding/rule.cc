// SPDX-License-Identifier: Apache-2.0
#include "core/decoding/rule.h"

#include <array>
#include <cmath>
#include <cstddef>
#include <string>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace maskkv::decoding {
namespace {

constexpr std::array kRules = {
    Rule::kLowConfidence, Rule::kRandom,  Rule::kOrigin,    Rule::kMaskgitPlus,
    Rule::kTopkMargin,    Rule::kEntropy, Rule::kThreshold, Rule::kFactor,
    Rule::kHierarchical,  Rule::kPrefix,  Rule::kSlowFast,  Rule::kRemix,
};
constexpr std::array<const char*, kRules.size()> kNames = {
    "low_confidence", "random", "origin",       "maskgit_plus", "topk_margin", "entropy",
    "threshold",      "factor", "hierarchical", "prefix",       "slowfast",    "remix",
};

absl::Status Expected(const char* name, const char* expected, double found) {
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: expected %s, found %g", name, expected, found));
}

// Tokens that a mask is mixed of: what a request remembers of each.
constexpr std::int64_t kMostMixed = 1024;

absl::Status ExpectedCount(const char* name, std::int64_t most, std::int64_t found) {
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: expected 1 to %d, found %d", name, most, found));
}

bool IsProbability(double value) { return value >= 0 && value <= 1; }  // NaN is none

}  // namespace

std::span<const Rule> AllRules() { return kRules; }

std::string_view Name(Rule rule) { return kNames[static_cast<std::size_t>(rule)]; }

absl::StatusOr<Rule> ParseRule(std::string_view name) {
  for (std::size_t i = 0; i < kRules.size(); ++i) {
    if (name == kNames[i]) return kRules[i];
  }
  return absl::InvalidArgumentError(
      absl::StrFormat("rule: expected one of %s, found \"%s\"", absl::StrJoin(kNames, ", "), name));
}

absl::Status Validate(const RuleParams& params) {
  if (!(params.top_p > 0 && params.top_p <= 1)) {
    return Expected("top_p", "a number above 0, at most 1", params.top_p);
  }
  if (params.top_k < 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("top_k: expected 0 (off) or more, found %d", params.top_k));
  }
  if (!(params.eps > 0 && params.eps < 1)) {
    return Expected("eps", "a number between 0 and 1", params.eps);
  }
  if (!std::isfinite(params.alg_temp) || params.alg_temp < 0) {
    return Expected("alg_temp", "a finite number >= 0", params.alg_temp);
  }
  if (!IsProbability(params.threshold)) {
    return Expected("threshold", "a number from 0 to 1", params.threshold);
  }
  if (!IsProbability(params.low_threshold)) {
    return Expected("low_threshold", "a number from 0 to 1", params.low_threshold);
  }
  if (!std::isfinite(params.factor) || params.factor < 0) {
    return Expected("factor", "a finite number >= 0", params.factor);
  }
  if (!IsProbability(params.span_threshold)) {
    return Expected("span_threshold", "a number from 0 to 1", params.span_threshold);
  }
  if (params.explore_steps < 1 || params.explore_steps > kMostExploreSteps) {
    return ExpectedCount("explore_steps", kMostExploreSteps, params.explore_steps);
  }
  if (params.stable_steps < 1 || params.stable_steps > kMostStableSteps) {
    return ExpectedCount("stable_steps", kMostStableSteps, params.stable_steps);
  }
  if (!IsProbability(params.mix_weight)) {
    return Expected("mix_weight", "a number from 0 to 1", params.mix_weight);
  }
  if (params.mix_top < 1 || params.mix_top > kMostMixed) {
    return ExpectedCount("mix_top", kMostMixed, params.mix_top);
  }
  if (!std::isfinite(params.js_threshold) || params.js_threshold < 0) {
    return Expected("js_threshold", "a finite number >= 0", params.js_threshold);
  }
  return absl::OkStatus();
}

bool IsScheduled(Rule rule) {
  switch (rule) {
    case Rule::kLowConfidence:
    case Rule::kRandom:
    case Rule::kOrigin:
    case Rule::kMaskgitPlus:
    case Rule::kTopkMargin:
    case Rule::kEntropy:
      return true;
    case Rule::kThreshold:
    case Rule::kFactor:
    case Rule::kHierarchical:
    case Rule::kPrefix:
    case Rule::kSlowFast:
    case Rule::kRemix:
      return false;
  }
  return false;
}

bool HasBlocks(Rule rule) {
  return rule != Rule::kOrigin && rule != Rule::kMaskgitPlus && rule != Rule::kTopkMargin &&
         rule != Rule::kEntropy;
}

bool IsFiltered(const RuleParams& params) {
  if (params.source != ConfidenceSource::kOfRule) {
    return params.source == ConfidenceSource::kFiltered;
  }
  return params.rule == Rule::kMaskgitPlus || params.rule == Rule::kTopkMargin ||
         params.rule == Rule::kEntropy;
}

bool IsMixed(Rule rule) { return rule == Rule::kRemix; }

}  // namespace maskkv::decoding
