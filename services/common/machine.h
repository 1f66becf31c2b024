// SPDX-License-Identifier: Apache-2.0
//
// The CPUs and NUMA nodes that this process may use, as files under /sys and /proc say. A file that
// is not there, or that nobody can read, leaves its field empty.
#ifndef MASKKV_SERVICES_COMMON_MACHINE_H_
#define MASKKV_SERVICES_COMMON_MACHINE_H_

#include <string>
#include <vector>

#include "kernels/parallel/cpus.h"

namespace maskkv::services {

struct NumaNode {
  int id = 0;
  kernels::CpuList cpus{};  // ascending; empty for memory without CPUs
};

struct Machine {
  kernels::CpuList online{};   // ascending
  kernels::CpuList allowed{};  // of them what the calling thread may run on, ascending
  int usable = 1;              // threads that can run at once (kernels::UsableCpus)
  // Ascending, nodes with memory that the process's cpuset allows; empty: a kernel without NUMA.
  std::vector<NumaNode> nodes{};
};

// root: put before /sys and /proc, for tests. `allowed` is the calling thread's in any case.
Machine ReadMachine(const std::string& root = "");

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_MACHINE_H_
