// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/rule_flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string_view>

#include "core/decoding/rule_spec.h"
#include "services/maskkv/flag_checks.h"

namespace maskkv::cli {
namespace {

// Form and range of one parameter, the others at their defaults.
CLI::Validator OneParameter(std::string_view name) {
  return CLI::Validator(
      [name](std::string& text) {
        decoding::RuleParams params;
        absl::Status status = decoding::SetParameter(name, text, params);
        if (status.ok()) status = decoding::Validate(params);
        return status.ok() ? std::string() : WithoutName(name, std::string(status.message()));
      },
      "");
}

std::string FlagName(std::string_view parameter) {
  std::string name = "--" + std::string(parameter);
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

}  // namespace

void RuleFlags::Declare(CLI::App& app) {
  app.add_option("--rule", rule,
                 "Which masks a step commits (docs/decoding.md); threshold:0.8 is threshold with "
                 "--threshold 0.8")
      ->check(AnyRule())
      ->capture_default_str();
  app.add_option("--confidence", confidence,
                 "Scores before (raw) or after (filtered) temperature, top-p and top-k, or as the "
                 "rule says")
      ->check(OneOf({"rule", "raw", "filtered"}))
      ->capture_default_str();
  for (const decoding::Parameter& parameter : decoding::AllParameters()) {
    std::visit(
        [&](const auto field) {
          app.add_option(FlagName(parameter.name), numbers.*field,
                         "Rule: " + std::string(parameter.meaning))
              ->check(OneParameter(parameter.name))
              ->capture_default_str();
        },
        parameter.field);
  }
}

decoding::RuleParams RuleFlags::base() const {
  decoding::RuleParams params = numbers;
  params.source = decoding::ParseConfidenceSource(confidence).value();
  return params;
}

absl::Status RuleFlags::Validate() const { return decoding::ParseRuleSpec(rule, base()).status(); }

decoding::RuleParams RuleFlags::params() const {
  return decoding::ParseRuleSpec(rule, base()).value();
}

}  // namespace maskkv::cli
