// SPDX-License-Identifier: Apache-2.0
//
// Whole small files: read with a bound, written so that a reader sees the old contents or the new,
// never a part. No file stays open. Functions without state; two writers of one path do not mix
// their contents, the later one wins.
#ifndef MASKKV_CORE_BASE_FILE_H_
#define MASKKV_CORE_BASE_FILE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace maskkv {

// The contents of a regular file.
// Errors: what the system says (NOT_FOUND, PERMISSION_DENIED, ...), starting with the path;
// INVALID_ARGUMENT if the path is no regular file or holds more than max_bytes.
absl::StatusOr<std::string> ReadFile(const std::string& path, std::int64_t max_bytes);

// Writes a temporary file beside `path`, flushes it to the device, renames it over `path` and
// flushes the directory. The file gets mode 0644. On an error `path` is as it was before and the
// temporary file is gone; an error of the last flush alone leaves the new contents.
// Errors: what the system says, starting with the path.
absl::Status WriteFileAtomically(const std::string& path, std::string_view contents);

}  // namespace maskkv

#endif  // MASKKV_CORE_BASE_FILE_H_
