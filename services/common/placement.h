// SPDX-License-Identifier: Apache-2.0
//
// Where a program computes: how many threads, on which CPUs, with memory of which NUMA nodes. From
// flags to the options of a worker pool, which every pool of the process gets.
#ifndef MASKKV_SERVICES_COMMON_PLACEMENT_H_
#define MASKKV_SERVICES_COMMON_PLACEMENT_H_

#include <string>

#include "absl/status/statusor.h"
#include "kernels/parallel/worker_pool.h"
#include "services/common/machine.h"

namespace CLI {
class App;
}

namespace maskkv::services {

struct PlacementOptions {
  int threads = 0;     // 0: one for each of `cpus`, or for each CPU that can be used at once
  std::string cpus{};  // a list as ParseCpuList takes it; "": the system decides
  std::string numa{};  // none | interleave | local; "" is none

  // Declares --cpus and --numa (--threads is each program's own), which refuse what is malformed.
  void Declare(CLI::App& app);
};

// Workers sit on `cpus` in their order, the first `threads` of them. Memory of `interleave` goes
// over the nodes of those CPUs, without `cpus` of all that the process may run on; where they have
// no memory, over all nodes. Pure.
// Errors: INVALID_ARGUMENT: a malformed list, a CPU that the machine does not have or the process
// may not use, more threads than CPUs, interleaving on a kernel without NUMA.
absl::StatusOr<kernels::PoolOptions> PlacePool(const PlacementOptions& options,
                                               const Machine& machine);

// The same for this machine, tried: the memory policy is one that the system lets a thread have.
// Logs threads, CPUs and policy. Errors: as above; FAILED_PRECONDITION if the system refuses.
absl::StatusOr<kernels::PoolOptions> PlacePoolHere(const PlacementOptions& options);

// CPUs that a process which may use `allowed` has beside the pool's; empty: none, or a pool that
// runs anywhere.
kernels::CpuList CpusBeside(const kernels::PoolOptions& pool, const kernels::CpuList& allowed);

// Moves every thread that there is now off the pool's CPUs, if others are left; threads that they
// start, such as a server's, inherit that. Call it in main between PlacePoolHere and the first
// server or pool; a pool's threads and seats go back to its CPUs by themselves.
void LeaveCpusTo(const kernels::PoolOptions& pool);

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_PLACEMENT_H_
