// SPDX-License-Identifier: Apache-2.0
//
// The two statements that pass an absl::Status up. Debian's Abseil has none of its own.
#ifndef MASKKV_CORE_BASE_STATUS_MACROS_H_
#define MASKKV_CORE_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define MASKKV_CONCAT_INNER_(a, b) a##b
#define MASKKV_CONCAT_(a, b) MASKKV_CONCAT_INNER_(a, b)

// Returns from the function if `expression` (an absl::Status) is not OK.
#define MASKKV_RETURN_IF_ERROR(expression)                                                       \
  do {                                                                                           \
    if (absl::Status maskkv_status_ = (expression); !maskkv_status_.ok()) return maskkv_status_; \
  } while (false)

// `target` = value of `expression` (an absl::StatusOr), or returns its status. `target` may
// declare.
#define MASKKV_ASSIGN_OR_RETURN(target, expression) \
  MASKKV_ASSIGN_OR_RETURN_(MASKKV_CONCAT_(maskkv_or_, __LINE__), target, expression)
#define MASKKV_ASSIGN_OR_RETURN_(holder, target, expression) \
  auto holder = (expression);                                \
  if (!holder.ok()) return std::move(holder).status();       \
  target = std::move(holder).value()

#endif  // MASKKV_CORE_BASE_STATUS_MACROS_H_
