// SPDX-License-Identifier: Apache-2.0
//
// What a user hands in: whole files of any kind (regular, pipe, standard input), bounded, and
// without getting stuck when a signal arrives while nothing does. Functions without state.
#ifndef MASKKV_SERVICES_MASKKV_INPUT_H_
#define MASKKV_SERVICES_MASKKV_INPUT_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace maskkv::cli {

// Reads a whole file, "-" is standard input.
// Errors: what the system says (NOT_FOUND, PERMISSION_DENIED, ...), RESOURCE_EXHAUSTED (over
// max_bytes), CANCELLED (SIGINT or SIGTERM), each starting with the path.
absl::StatusOr<std::string> ReadInput(const std::string& path, std::size_t max_bytes);

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_INPUT_H_
