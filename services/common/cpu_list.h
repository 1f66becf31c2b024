// SPDX-License-Identifier: Apache-2.0
//
// Lists of CPUs or NUMA nodes as Linux and taskset write them: "0-3,8", "0-30:2". Pure.
#ifndef MASKKV_SERVICES_COMMON_CPU_LIST_H_
#define MASKKV_SERVICES_COMMON_CPU_LIST_H_

#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "kernels/parallel/cpus.h"

namespace maskkv::services {

// Numbers and ranges A-B or A-B:STEP between commas, in the order in which they are named. No
// blanks, no signs; each number below kernels::kMostCpus and named once.
// Errors: INVALID_ARGUMENT "expected ..., found ...".
absl::StatusOr<kernels::CpuList> ParseCpuList(std::string_view text);

// The shortest such text without steps, in the list's order; "" for none.
std::string FormatCpuList(std::span<const int> cpus);

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_CPU_LIST_H_
