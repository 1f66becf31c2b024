// SPDX-License-Identifier: Apache-2.0
//
// Which CPUs a thread may run on and how many the process may use at once, as Linux says: affinity
// masks and quotas of control groups. Functions without state of their own. Thread safe.
#ifndef MASKKV_KERNELS_PARALLEL_CPUS_H_
#define MASKKV_KERNELS_PARALLEL_CPUS_H_

#include <pthread.h>

#include <span>
#include <string>
#include <vector>

namespace maskkv::kernels {

// CPU numbers as Linux counts them, in [0, kMostCpus).
using CpuList = std::vector<int>;
inline constexpr int kMostCpus = 8192;

// CPUs that the calling thread may run on, ascending: what its cpuset, taskset or a parent left of
// the machine. Empty if the system does not say.
CpuList CpusOfThread();

// From now on the thread runs on these CPUs alone, as do threads that it starts. Returns 0 or an
// errno; then nothing has changed. REQUIRES: each in [0, kMostCpus).
int SetCpusOfThread(pthread_t thread, std::span<const int> cpus);

// The same of every thread that the process has now. A thread that the system refuses to move, as
// one that has just ended, stays as it is.
void SetCpusOfProcess(std::span<const int> cpus);

// How many CPUs' time the control groups of the process grant it, the least of its own and those
// above: cpu.max of version 2, cpu.cfs_quota_us of version 1. Infinity without a quota.
// root: put before /proc and /sys, for tests.
double CpuQuota(const std::string& root = "");

// How many threads of the calling thread's affinity can run at once: its CPUs, and no more than the
// whole CPUs of the quota; at least 1.
int UsableCpus(const std::string& root = "");

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_PARALLEL_CPUS_H_
