// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/rope_flags.h"

#include <CLI/CLI.hpp>
#include <limits>

#include "services/maskkv/flag_checks.h"

namespace maskkv::cli {
namespace {

CLI::Validator RopeScalingText() {
  const CLI::Validator word = OneOf({"none", "longllada"});
  const CLI::Validator number = NumberIn(1, std::numeric_limits<double>::max());
  return CLI::Validator(
      [word, number](std::string& text) {
        const bool good = word(text).empty() || number(text).empty();
        return good ? std::string()
                    : "expected none, longllada or a finite number from 1, found " +
                          (text.empty() ? "nothing" : text);
      },
      "none|longllada|FACTOR");
}

}  // namespace

void RopeFlags::Declare(CLI::App& app) {
  app.add_option("--rope-scaling", scaling,
                 "For prompts beyond the trained length: multiply RoPE's base by LongLLaDA's "
                 "factor for prompt and masks (longllada) or by FACTOR")
      ->check(RopeScalingText())
      ->capture_default_str();
}

model::RopeScaling RopeFlags::choice() const {
  using Rule = model::RopeScaling::Rule;
  if (scaling == "none") return {};
  if (scaling == "longllada") return {.rule = Rule::kLongLlada, .factor = 1};
  return {.rule = Rule::kFactor, .factor = std::stod(scaling)};
}

}  // namespace maskkv::cli
