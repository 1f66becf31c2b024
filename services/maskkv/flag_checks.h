// SPDX-License-Identifier: Apache-2.0
//
// Checks of single flag values, whose messages say what was expected and what was found ("--budget:
// expected an integer from 1 to 10, found 2.5"). Integers are plain decimals: the parser
// behind would also take octal, hexadecimal and, for unsigned ones, a minus sign. Pure.
#ifndef MASKKV_SERVICES_MASKKV_FLAG_CHECKS_H_
#define MASKKV_SERVICES_MASKKV_FLAG_CHECKS_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace maskkv::cli {

// The largest number of pairs, prompts or positions that a flag may ask for.
inline constexpr std::int64_t kLargestCount = std::int64_t{1} << 24;

// An integer in [least, most].
CLI::Validator IntegerIn(std::int64_t least, std::int64_t most);

// An integer from 0 to 2^64 - 1.
CLI::Validator AnySeed();

// A finite number in [least, most].
CLI::Validator NumberIn(double least, double most);

// A policy's name or VOTERS/LAYERS/HEADS (core/policy/named_policy.h).
CLI::Validator AnyPolicy();

// A decoding rule with parameters: RULE[:VALUE][:NAME=VALUE]... (core/decoding/rule_spec.h).
CLI::Validator AnyRule();

// `message` without "NAME: " at its beginning: a flag's own name comes before what a check says.
std::string WithoutName(std::string_view name, std::string message);

// One of `words`.
CLI::Validator OneOf(std::vector<std::string> words);

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_FLAG_CHECKS_H_
