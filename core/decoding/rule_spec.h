// SPDX-License-Identifier: Apache-2.0
//
// A rule with its parameters as text, as command lines and reports write it:
//
//   RULE[:VALUE][:NAME=VALUE]...        "low_confidence", "threshold:0.9",
//                                       "hierarchical:0.95:low_threshold=0.5"
//
// A VALUE without a name is that of the rule's main parameter. Names are those of AllParameters and
// "confidence" (rule, raw, filtered). A parameter that is added to the table in rule_spec.cc is a
// flag of the command line and part of the text at once. Pure functions.
#ifndef MASKKV_CORE_DECODING_RULE_SPEC_H_
#define MASKKV_CORE_DECODING_RULE_SPEC_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/decoding/rule.h"

namespace maskkv::decoding {

struct Parameter {
  std::string_view name;     // as in RuleParams
  std::string_view meaning;  // half a line, with the rules that read it
  std::variant<double RuleParams::*, std::int64_t RuleParams::*> field;
};

// Every number of RuleParams.
std::span<const Parameter> AllParameters();

// The name of the parameter that a rule is mostly asked for with; empty if it has none.
std::string_view MainParameter(Rule rule);

// Sets the parameter to the number that `text` is. Errors: INVALID_ARGUMENT (name, text), which
// begins with the parameter's name; ranges are Validate's.
absl::Status SetParameter(std::string_view name, std::string_view text, RuleParams& params);

// "rule", "raw" or "filtered". Errors: INVALID_ARGUMENT.
absl::StatusOr<ConfidenceSource> ParseConfidenceSource(std::string_view name);
std::string_view Name(ConfidenceSource source);

// What the text does not name is as in `base`. Errors: INVALID_ARGUMENT, of Validate too.
absl::StatusOr<RuleParams> ParseRuleSpec(std::string_view text, const RuleParams& base = {});

// The shortest text that ParseRuleSpec makes `params` of, with the main parameter always there.
std::string RuleSpec(const RuleParams& params);

}  // namespace maskkv::decoding

#endif  // MASKKV_CORE_DECODING_RULE_SPEC_H_
