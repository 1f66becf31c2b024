// SPDX-License-Identifier: Apache-2.0
//
// Statuses in tests: Debian's Abseil has no matchers. A failure prints the whole status.
#ifndef MASKKV_TESTS_SUPPORT_STATUS_MATCHERS_H_
#define MASKKV_TESTS_SUPPORT_STATUS_MATCHERS_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/status_macros.h"

namespace maskkv::testing {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& value) {
  return value.status();
}

MATCHER(IsOk, "is OK") {
  *result_listener << "whose status is " << StatusOf(arg).ToString();
  return StatusOf(arg).ok();
}

// StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("budget")).
MATCHER_P2(StatusIs, code, message, "has the code and a message that match") {
  *result_listener << "whose status is " << StatusOf(arg).ToString();
  return StatusOf(arg).code() == code &&
         ::testing::Matches(message)(std::string(StatusOf(arg).message()));
}

}  // namespace maskkv::testing

// `target` = the value of an absl::StatusOr; ends the test if there is none.
#define MASKKV_ASSERT_OK_AND_ASSIGN(target, expression) \
  MASKKV_ASSERT_OK_AND_ASSIGN_(MASKKV_CONCAT_(maskkv_or_, __LINE__), target, expression)
#define MASKKV_ASSERT_OK_AND_ASSIGN_(holder, target, expression)      \
  auto holder = (expression);                                         \
  ASSERT_TRUE(holder.ok()) << #expression << ": " << holder.status(); \
  target = std::move(holder).value()

#endif  // MASKKV_TESTS_SUPPORT_STATUS_MATCHERS_H_
