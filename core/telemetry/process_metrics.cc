// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "core/telemetry/common_metrics.h"

namespace maskkv::telemetry {
namespace {

// Order of ProcessMetricSpecs.
enum ProcessIndex { kCpu, kResident, kVirtual, kOpenFds, kMaxFds, kStartTime, kThreads, kCount };

constexpr std::array<MetricSpec, kCount> kSpecs{{
    {"process_cpu_seconds_total", MetricType::kCounter, "seconds",
     "User and system CPU time spent."},
    {"process_resident_memory_bytes", MetricType::kGauge, "bytes", "Resident memory."},
    {"process_virtual_memory_bytes", MetricType::kGauge, "bytes", "Virtual memory."},
    {"process_open_fds", MetricType::kGauge, "1", "Open file descriptors."},
    {"process_max_fds", MetricType::kGauge, "1", "Most file descriptors that may be open."},
    {"process_start_time_seconds", MetricType::kGauge, "seconds",
     "Start of the process, in seconds since 1970."},
    {"process_threads", MetricType::kGauge, "1", "Threads of the process."},
}};

std::string ReadSmallFile(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Fields of /proc/self/stat from the third on (proc(5) counts from 1): the second, the program's
// name, may hold blanks and parentheses.
std::vector<std::string> StatFields() {
  const std::string text = ReadSmallFile("/proc/self/stat");
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return {};
  std::istringstream rest(text.substr(name_end + 1));
  return {std::istream_iterator<std::string>(rest), {}};
}

std::optional<double> BootTime() {
  std::istringstream stat(ReadSmallFile("/proc/stat"));
  for (std::string line; std::getline(stat, line);) {
    if (line.starts_with("btime ")) return std::strtod(line.c_str() + 6, nullptr);
  }
  return std::nullopt;
}

std::optional<double> OpenDescriptors() {
  DIR* const folder = ::opendir("/proc/self/fd");
  if (folder == nullptr) return std::nullopt;
  double count = -3;  // ".", ".." and the descriptor of this listing
  while (::readdir(folder) != nullptr) ++count;
  ::closedir(folder);
  return count;
}

}  // namespace

std::vector<MetricSpec> ProcessMetricSpecs() { return {kSpecs.begin(), kSpecs.end()}; }

std::vector<ProcessMetric> ReadProcessMetrics() {
  std::vector<ProcessMetric> found;
  const auto add = [&](ProcessIndex index, double value) {
    found.push_back({kSpecs[index], value});
  };
  const std::vector<std::string> fields = StatFields();
  const auto field = [&](std::size_t number) {
    return std::strtod(fields[number - 3].c_str(), nullptr);
  };
  if (fields.size() >= 22) {
    const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
    const auto page = static_cast<double>(::sysconf(_SC_PAGESIZE));
    add(kCpu, (field(14) + field(15)) / ticks);
    add(kThreads, field(20));
    add(kVirtual, field(23));
    add(kResident, field(24) * page);
    static const std::optional<double> boot = BootTime();
    if (boot) add(kStartTime, *boot + field(22) / ticks);
  }
  if (const std::optional<double> open = OpenDescriptors()) add(kOpenFds, *open);
  if (rlimit limit{}; ::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    add(kMaxFds, static_cast<double>(limit.rlim_cur));
  }
  return found;
}

}  // namespace maskkv::telemetry
