// SPDX-License-Identifier: Apache-2.0
#include "services/decode/automaton_proto.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "maskkv/v1/decode.pb.h"

namespace maskkv::decode {

absl::StatusOr<std::shared_ptr<const decoding::TokenAutomaton>> AutomatonOf(
    const v1::TokenAutomaton& message) {
  decoding::AutomatonParts parts;
  parts.states = message.states();
  parts.start = message.start();
  parts.accepting.assign(message.accepting().begin(), message.accepting().end());
  for (const v1::IdSet& set : message.sets()) {
    if (set.ranges_size() % 2 != 0) {
      return absl::InvalidArgumentError(
          absl::StrFormat("automaton: set %d: expected two numbers a range, found %d numbers",
                          parts.sets.size(), set.ranges_size()));
    }
    std::vector<decoding::IdRange>& ranges = parts.sets.emplace_back();
    for (int i = 0; i < set.ranges_size(); i += 2) {
      ranges.push_back({set.ranges(i), set.ranges(i + 1)});
    }
  }
  if (message.arcs_size() % 3 != 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "automaton: arcs: expected three numbers each, found %d numbers", message.arcs_size()));
  }
  for (int i = 0; i < message.arcs_size(); i += 3) {
    parts.arcs.push_back({message.arcs(i), message.arcs(i + 1), message.arcs(i + 2)});
  }
  return decoding::TokenAutomaton::Make(std::move(parts));
}

}  // namespace maskkv::decode
