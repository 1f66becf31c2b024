// SPDX-License-Identifier: Apache-2.0
//
// --automaton of the commands that answer: a file that says which answers are allowed
// (docs/automaton.schema.json; python -m maskkv.grammar makes one). A value.
#ifndef MASKKV_SERVICES_MASKKV_AUTOMATON_FLAGS_H_
#define MASKKV_SERVICES_MASKKV_AUTOMATON_FLAGS_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/decoding/token_automaton.h"
#include "core/engine/generate_params.h"

namespace CLI {
class App;
}

namespace maskkv::cli {

// Errors: INVALID_ARGUMENT that begins with `file` and names the field.
absl::StatusOr<std::shared_ptr<const decoding::TokenAutomaton>> ParseAutomaton(
    std::string_view json, std::string_view file);

struct AutomatonFlags {
  std::string file;  // empty: any answer

  void Declare(CLI::App& app);
  // Errors: of the file's reader and ParseAutomaton.
  absl::Status Apply(engine::GenerateParams& params) const;
};

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_AUTOMATON_FLAGS_H_
