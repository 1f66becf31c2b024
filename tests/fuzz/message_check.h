// SPDX-License-Identifier: Apache-2.0
//
// What every fuzz target asks of an error.
#ifndef MASKKV_TESTS_FUZZ_MESSAGE_CHECK_H_
#define MASKKV_TESTS_FUZZ_MESSAGE_CHECK_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "core/base/check.h"

namespace maskkv {

// The message of a file that is wrong is one short line of ASCII that starts with the file's name.
inline void CheckMessage(const absl::Status& status, std::string_view file) {
  const std::string message(status.message());
  for (const char c : message) MASKKV_CHECK(c >= ' ' && c <= '~', "one line of ASCII");
  MASKKV_CHECK(message.size() < 1000, "a line that fits a log");
  MASKKV_CHECK(message.starts_with(std::string(file) + ": "), "the message names the file");
}

}  // namespace maskkv

#endif  // MASKKV_TESTS_FUZZ_MESSAGE_CHECK_H_
