// SPDX-License-Identifier: Apache-2.0
//
// A request's automaton between the wire and core/decoding. Pure function.
#ifndef MASKKV_SERVICES_DECODE_AUTOMATON_PROTO_H_
#define MASKKV_SERVICES_DECODE_AUTOMATON_PROTO_H_

#include <memory>

#include "absl/status/statusor.h"
#include "core/decoding/token_automaton.h"

namespace maskkv::v1 {
class TokenAutomaton;
}

namespace maskkv::decode {

// Errors: INVALID_ARGUMENT: numbers that are no whole ranges or arcs, and of TokenAutomaton::Make.
absl::StatusOr<std::shared_ptr<const decoding::TokenAutomaton>> AutomatonOf(
    const v1::TokenAutomaton& message);

}  // namespace maskkv::decode

#endif  // MASKKV_SERVICES_DECODE_AUTOMATON_PROTO_H_
