// SPDX-License-Identifier: Apache-2.0
#include "core/decoding/rule_spec.h"

#include <array>
#include <charconv>
#include <cmath>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "core/base/status_macros.h"

namespace maskkv::decoding {
namespace {

constexpr std::array kParameters = {
    Parameter{"top_p", "smallest set of tokens whose probability exceeds it; 1 is all (any rule)",
              &RuleParams::top_p},
    Parameter{"top_k", "so many most likely tokens; 0 is all (any rule)", &RuleParams::top_k},
    Parameter{"eps", "where time ends (origin, maskgit_plus, topk_margin, entropy)",
              &RuleParams::eps},
    Parameter{"alg_temp", "0 commits the surest, else draws (maskgit_plus, topk_margin, entropy)",
              &RuleParams::alg_temp},
    Parameter{"threshold",
              "surer ones are committed (threshold, hierarchical, prefix, slowfast, remix)",
              &RuleParams::threshold},
    Parameter{"low_threshold", "of the best of each run of masks (hierarchical)",
              &RuleParams::low_threshold},
    Parameter{"factor", "rank n is committed from 1 - factor / (n + 1) on (factor)",
              &RuleParams::factor},
    Parameter{"span_threshold", "the last mask this sure ends the span (slowfast)",
              &RuleParams::span_threshold},
    Parameter{"explore_steps", "most steps that look for the span's end (slowfast)",
              &RuleParams::explore_steps},
    Parameter{"stable_steps", "so many estimates of the end have to agree (slowfast)",
              &RuleParams::stable_steps},
    Parameter{"mix_weight", "how much a mask is what it was predicted to be (remix)",
              &RuleParams::mix_weight},
    Parameter{"mix_top", "so many most likely tokens of the prediction (remix)",
              &RuleParams::mix_top},
    Parameter{"js_threshold", "predictions that moved further, in nats, are not mixed in (remix)",
              &RuleParams::js_threshold},
};

constexpr std::string_view kConfidence = "confidence";
constexpr std::array<std::string_view, 3> kSources = {"rule", "raw", "filtered"};

// The shortest decimal that reads back as the same number.
template <typename T>
std::string Shortest(T value) {
  std::array<char, 32> text;
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), value);
  return std::string(text.data(), end);
}

absl::Status Unreadable(std::string_view name, std::string_view expected, std::string_view found) {
  return absl::InvalidArgumentError(absl::StrFormat("%s: expected %s, found %s", name, expected,
                                                    found.empty() ? "nothing" : found));
}

const Parameter* Find(std::string_view name) {
  for (const Parameter& parameter : kParameters) {
    if (parameter.name == name) return &parameter;
  }
  return nullptr;
}

std::string NamesToChooseFrom() {
  std::string names = "one of ";
  for (const Parameter& parameter : kParameters) names += std::string(parameter.name) + ", ";
  return names + std::string(kConfidence);
}

}  // namespace

std::span<const Parameter> AllParameters() { return kParameters; }

std::string_view MainParameter(Rule rule) {
  switch (rule) {
    case Rule::kThreshold:
    case Rule::kHierarchical:
    case Rule::kPrefix:
    case Rule::kSlowFast:
    case Rule::kRemix:
      return "threshold";
    case Rule::kFactor:
      return "factor";
    default:
      return "";
  }
}

absl::Status SetParameter(std::string_view name, std::string_view text, RuleParams& params) {
  const Parameter* const parameter = Find(name);
  if (parameter == nullptr) return Unreadable("parameter", NamesToChooseFrom(), name);
  const char* const end = text.data() + text.size();
  if (const auto* integer = std::get_if<std::int64_t RuleParams::*>(&parameter->field)) {
    std::int64_t value = 0;
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || stop != end) return Unreadable(name, "an integer", text);
    params.*(*integer) = value;
    return absl::OkStatus();
  }
  double value = 0;
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || !std::isfinite(value)) {
    return Unreadable(name, "a finite number", text);
  }
  params.*std::get<double RuleParams::*>(parameter->field) = value;
  return absl::OkStatus();
}

absl::StatusOr<ConfidenceSource> ParseConfidenceSource(std::string_view name) {
  for (std::size_t i = 0; i < kSources.size(); ++i) {
    if (name == kSources[i]) return static_cast<ConfidenceSource>(i);
  }
  return Unreadable(kConfidence, "one of rule, raw, filtered", name);
}

std::string_view Name(ConfidenceSource source) {
  return kSources[static_cast<std::size_t>(source)];
}

absl::StatusOr<RuleParams> ParseRuleSpec(std::string_view text, const RuleParams& base) {
  const std::vector<std::string> parts =
      absl::StrSplit(absl::string_view(text.data(), text.size()), ':');
  RuleParams params = base;
  MASKKV_ASSIGN_OR_RETURN(params.rule, ParseRule(parts.front()));
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const std::string_view part = parts[i];
    const std::size_t equals = part.find('=');
    std::string_view name = MainParameter(params.rule);
    std::string_view value = part;
    if (equals != std::string_view::npos) {
      name = part.substr(0, equals);
      value = part.substr(equals + 1);
    } else if (name.empty()) {
      return Unreadable("rule", "NAME=VALUE after " + parts.front() + ":", part);
    }
    if (name == kConfidence) {
      MASKKV_ASSIGN_OR_RETURN(params.source, ParseConfidenceSource(value));
    } else {
      MASKKV_RETURN_IF_ERROR(SetParameter(name, value, params));
    }
  }
  MASKKV_RETURN_IF_ERROR(Validate(params));
  return params;
}

std::string RuleSpec(const RuleParams& params) {
  std::string spec(Name(params.rule));
  const RuleParams unset;
  const auto value_of = [](const Parameter& parameter, const RuleParams& of) {
    return std::visit([&of](const auto field) { return Shortest(of.*field); }, parameter.field);
  };
  const std::string_view main = MainParameter(params.rule);
  if (!main.empty()) spec += ":" + value_of(*Find(main), params);
  for (const Parameter& parameter : kParameters) {
    const std::string value = value_of(parameter, params);
    if (parameter.name == main || value == value_of(parameter, unset)) continue;
    spec += absl::StrFormat(":%s=%s", parameter.name, value);
  }
  if (params.source != unset.source) {
    spec += absl::StrFormat(":%s=%s", kConfidence, Name(params.source));
  }
  return spec;
}

}  // namespace maskkv::decoding
