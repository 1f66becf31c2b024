// SPDX-License-Identifier: Apache-2.0
//
// Text of unknown origin made fit for a message or a log line. Pure functions.
#ifndef MASKKV_SERVICES_COMMON_PRINTABLE_H_
#define MASKKV_SERVICES_COMMON_PRINTABLE_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace maskkv::services {

// Valid UTF-8 of at most max_bytes: control characters become blanks, bytes that are no UTF-8 '?';
// what is cut ends in "..." and splits no character. REQUIRES: max_bytes >= 3.
std::string Printable(std::string_view text, std::size_t max_bytes);

// Whether it is `least` to `most` characters of ASCII from ' ' to '~'.
bool IsPrintableAscii(std::string_view text, std::size_t least, std::size_t most);

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_PRINTABLE_H_
