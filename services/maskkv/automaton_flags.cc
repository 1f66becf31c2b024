// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/automaton_flags.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "services/maskkv/input.h"

namespace maskkv::cli {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxFileBytes = std::size_t{64} << 20;
constexpr std::string_view kFormat = "maskkv-automaton";
constexpr std::int32_t kVersion = 1;

absl::Status Expected(std::string_view where, std::string_view what, const json& found) {
  // A nested value is named by its type: it may be too deep to print.
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: expected %s, found %.40s", where, what,
                      found.is_structured() ? found.type_name() : found.dump(-1, ' ', true)));
}

absl::StatusOr<std::int32_t> NumberOf(std::string_view where, const json& value) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > INT32_MAX) {
    return Expected(where, absl::StrFormat("an integer from 0 to %d", INT32_MAX), value);
  }
  return static_cast<std::int32_t>(value.get<std::uint64_t>());
}

// An array of numbers, a multiple of `group` of them.
absl::StatusOr<std::vector<std::int32_t>> NumbersOf(std::string_view where, const json& value,
                                                    std::size_t group) {
  if (!value.is_array()) return Expected(where, "an array", value);
  if (value.size() % group != 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s: expected a multiple of %d numbers, found %d", where, group, value.size()));
  }
  std::vector<std::int32_t> numbers;
  for (std::size_t i = 0; i < value.size(); ++i) {
    MASKKV_ASSIGN_OR_RETURN(const std::int32_t number,
                            NumberOf(absl::StrFormat("%s: element %d", where, i), value[i]));
    numbers.push_back(number);
  }
  return numbers;
}

absl::Status CheckFields(std::string_view file, const json& fields) {
  if (!fields.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: expected a JSON object, found %s", file,
                        fields.is_discarded() ? "no JSON" : fields.type_name()));
  }
  for (const char* name : {"format", "version", "states", "start", "accepting", "sets", "arcs"}) {
    if (fields.contains(name)) continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: expected a field %s, found none", file, name));
  }
  if (fields["format"] != kFormat) {
    return Expected(absl::StrFormat("%s: format", file), kFormat, fields["format"]);
  }
  if (fields["version"] != kVersion) {
    return Expected(absl::StrFormat("%s: version", file), absl::StrFormat("%d", kVersion),
                    fields["version"]);
  }
  if (!fields["sets"].is_array()) {
    return Expected(absl::StrFormat("%s: sets", file), "an array", fields["sets"]);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const decoding::TokenAutomaton>> ParseAutomaton(
    std::string_view text, std::string_view file) {
  const json fields = json::parse(text, nullptr, /*allow_exceptions=*/false);
  MASKKV_RETURN_IF_ERROR(CheckFields(file, fields));
  const auto at = [&](std::string_view name) { return absl::StrFormat("%s: %s", file, name); };
  decoding::AutomatonParts parts;
  MASKKV_ASSIGN_OR_RETURN(parts.states, NumberOf(at("states"), fields["states"]));
  MASKKV_ASSIGN_OR_RETURN(parts.start, NumberOf(at("start"), fields["start"]));
  MASKKV_ASSIGN_OR_RETURN(parts.accepting, NumbersOf(at("accepting"), fields["accepting"], 1));
  for (const json& set : fields["sets"]) {
    MASKKV_ASSIGN_OR_RETURN(
        const std::vector<std::int32_t> bounds,
        NumbersOf(absl::StrFormat("%s: set %d", file, parts.sets.size()), set, 2));
    std::vector<decoding::IdRange>& ranges = parts.sets.emplace_back();
    for (std::size_t i = 0; i < bounds.size(); i += 2) {
      ranges.push_back({bounds[i], bounds[i + 1]});
    }
  }
  MASKKV_ASSIGN_OR_RETURN(const std::vector<std::int32_t> arcs,
                          NumbersOf(at("arcs"), fields["arcs"], 3));
  for (std::size_t i = 0; i < arcs.size(); i += 3) {
    parts.arcs.push_back({arcs[i], arcs[i + 1], arcs[i + 2]});
  }
  auto automaton = decoding::TokenAutomaton::Make(std::move(parts));
  if (automaton.ok()) return automaton;
  return absl::InvalidArgumentError(absl::StrFormat("%s: %s", file, automaton.status().message()));
}

void AutomatonFlags::Declare(CLI::App& app) {
  app.add_option("--automaton", file,
                 "JSON file of the answers that are allowed (python -m maskkv.grammar makes one of "
                 "a regular expression or a JSON schema)");
}

absl::Status AutomatonFlags::Apply(engine::GenerateParams& params) const {
  if (file.empty()) return absl::OkStatus();
  MASKKV_ASSIGN_OR_RETURN(const std::string text, ReadInput(file, kMaxFileBytes));
  MASKKV_ASSIGN_OR_RETURN(params.automaton, ParseAutomaton(text, file));
  return absl::OkStatus();
}

}  // namespace maskkv::cli
