// SPDX-License-Identifier: Apache-2.0
//
// The flags of the decoding rule: --rule, --confidence and one for every parameter of
// decoding::AllParameters(), so that a new parameter is a flag at once. A value.
#ifndef MASKKV_SERVICES_MASKKV_RULE_FLAGS_H_
#define MASKKV_SERVICES_MASKKV_RULE_FLAGS_H_

#include <string>

#include "absl/status/status.h"
#include "core/decoding/rule.h"

namespace CLI {
class App;
}

namespace maskkv::cli {

struct RuleFlags {
  std::string rule = "low_confidence";
  std::string confidence = "rule";  // rule | raw | filtered
  decoding::RuleParams numbers;     // of the flags; what else it holds is not read

  void Declare(CLI::App& app);
  // What a rule that names no parameters runs with. REQUIRES: the texts were checked by Declare's
  // options, or are the defaults.
  decoding::RuleParams base() const;
  // That the parameters go together. Errors: INVALID_ARGUMENT.
  absl::Status Validate() const;
  // Of --rule. REQUIRES: Validate() is OK.
  decoding::RuleParams params() const;
};

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_RULE_FLAGS_H_
