// SPDX-License-Identifier: Apache-2.0
#include "kernels/parallel/cpus.h"

#include <dirent.h>
#include <sched.h>
#include <stdlib.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <limits>
#include <thread>

#include "kernels/base/require.h"

namespace maskkv::kernels {
namespace {

constexpr double kNoQuota = std::numeric_limits<double>::infinity();

// A cpu_set_t of any machine: the type of that name ends at 1024 CPUs.
class Mask {
 public:
  Mask() = default;
  explicit Mask(std::span<const int> cpus) {
    for (const int cpu : cpus) {
      MASKKV_REQUIRE(cpu >= 0 && cpu < kMostCpus, "CPU number");
      words_[Word(cpu)] |= Bit(cpu);
    }
  }

  CpuList cpus() const {
    CpuList found;
    for (int cpu = 0; cpu < kMostCpus; ++cpu) {
      if ((words_[Word(cpu)] & Bit(cpu)) != 0) found.push_back(cpu);
    }
    return found;
  }

  cpu_set_t* set() { return reinterpret_cast<cpu_set_t*>(words_.data()); }
  const cpu_set_t* set() const { return reinterpret_cast<const cpu_set_t*>(words_.data()); }
  static constexpr std::size_t bytes() { return kMostCpus / 8; }

 private:
  static constexpr int kBits = 8 * sizeof(unsigned long);
  static std::size_t Word(int cpu) { return static_cast<std::size_t>(cpu / kBits); }
  static unsigned long Bit(int cpu) { return 1UL << (cpu % kBits); }

  std::array<unsigned long, kMostCpus / kBits> words_{};
};

// "MICROSECONDS|max PERIOD" of version 2.
double QuotaOfGroup(const std::string& folder) {
  double quota = 0, period = 0;
  return std::ifstream(folder + "/cpu.max") >> quota >> period && period > 0 ? quota / period
                                                                             : kNoQuota;
}

// Version 1: two files; -1 is no quota.
double QuotaOfOldGroup(const std::string& folder) {
  double quota = 0, period = 0;
  const bool read = std::ifstream(folder + "/cpu.cfs_quota_us") >> quota &&
                    std::ifstream(folder + "/cpu.cfs_period_us") >> period;
  return read && quota > 0 && period > 0 ? quota / period : kNoQuota;
}

// The least quota from `path` up to the root. Folders that are not there have none: in a container
// the path may be one of the machine outside.
double LeastQuota(const std::string& mount, std::string path,
                  double (*quota_of)(const std::string&)) {
  double least = kNoQuota;
  for (;;) {
    least = std::min(least, quota_of(mount + path));
    const std::size_t slash = path.rfind('/');
    if (slash == std::string::npos) return least;
    path.resize(slash);
  }
}

// Whether "cpu" is one of the names between commas.
bool HasCpu(const std::string& controllers) {
  return ("," + controllers + ",").find(",cpu,") != std::string::npos;
}

}  // namespace

CpuList CpusOfThread() {
  Mask mask;
  return ::sched_getaffinity(0, Mask::bytes(), mask.set()) == 0 ? mask.cpus() : CpuList();
}

int SetCpusOfThread(pthread_t thread, std::span<const int> cpus) {
  const Mask mask(cpus);
  return ::pthread_setaffinity_np(thread, Mask::bytes(), mask.set());
}

void SetCpusOfProcess(std::span<const int> cpus) {
  const Mask mask(cpus);
  DIR* const tasks = ::opendir("/proc/self/task");
  if (tasks == nullptr) return;
  while (const dirent* const task = ::readdir(tasks)) {
    const int id = ::atoi(task->d_name);  // 0: "." and ".."
    if (id > 0) ::sched_setaffinity(id, Mask::bytes(), mask.set());
  }
  ::closedir(tasks);
}

double CpuQuota(const std::string& root) {
  double least = kNoQuota;
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // ID:CONTROLLERS:PATH
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) {
      least = std::min(least, LeastQuota(root + "/sys/fs/cgroup", path, QuotaOfGroup));
    } else if (HasCpu(controllers)) {
      least = std::min(least, LeastQuota(root + "/sys/fs/cgroup/cpu", path, QuotaOfOldGroup));
    }
  }
  return least;
}

int UsableCpus(const std::string& root) {
  const CpuList allowed = CpusOfThread();
  const double cpus = allowed.empty() ? static_cast<double>(std::thread::hardware_concurrency())
                                      : static_cast<double>(allowed.size());
  return std::max(1, static_cast<int>(std::floor(std::min(cpus, CpuQuota(root)))));
}

}  // namespace maskkv::kernels
