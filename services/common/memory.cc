// SPDX-License-Identifier: Apache-2.0
#include "services/common/memory.h"

#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "absl/strings/str_format.h"
#include "core/base/error.h"

namespace maskkv::services {
namespace {

constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max();

// A "Field:  123 kB" line of a file under /proc, in bytes; 0 if it is not there.
std::int64_t FieldBytes(const char* file, const std::string& field) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(field)) return std::stoll(line.substr(field.size())) * 1024;
  }
  return 0;
}

// The number that a file of the control group holds; no limit if it is absent or says "max".
std::int64_t GroupBytes(const char* file) {
  std::int64_t bytes = 0;
  return std::ifstream(file) >> bytes ? bytes : kNoLimit;
}

}  // namespace

std::int64_t PeakMemoryBytes() { return FieldBytes("/proc/self/status", "VmHWM:"); }
std::int64_t ResidentMemoryBytes() { return FieldBytes("/proc/self/status", "VmRSS:"); }

bool ResetPeakMemory() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;
  return file.good();
}

std::int64_t AvailableMemoryBytes() {
  std::int64_t available = FieldBytes("/proc/meminfo", "MemAvailable:");
  if (available == 0) available = kNoLimit;
  const std::int64_t group = GroupBytes("/sys/fs/cgroup/memory.max");
  if (group != kNoLimit) {
    const std::int64_t used = GroupBytes("/sys/fs/cgroup/memory.current");
    available = std::min(available, std::max<std::int64_t>(0, group - std::min(used, group)));
  }
  rlimit space{};
  if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur < static_cast<rlim_t>(kNoLimit)) {
    const std::int64_t used = FieldBytes("/proc/self/status", "VmSize:");
    available = std::min(
        available, std::max<std::int64_t>(0, static_cast<std::int64_t>(space.rlim_cur) - used));
  }
  return available;
}

absl::Status CheckFits(const model::ModelConfig& config, std::int64_t positions,
                       std::int64_t kv_layers, std::int64_t available) {
  const std::int64_t floats_a_position =
      config.hidden + 2 * config.kv_heads * config.head_dim * kv_layers + config.head_dim;
  const std::int64_t needed =
      positions * floats_a_position * static_cast<std::int64_t>(sizeof(float));
  return CheckBytesFit(needed, absl::StrFormat("a prompt and answer of %d positions", positions),
                       available);
}

absl::Status CheckBytesFit(std::int64_t needed, std::string_view what, std::int64_t available) {
  if (needed <= available) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
      absl::StrFormat("memory: expected at least %d bytes for %s, found %d available: %d missing",
                      needed, what, available, needed - available),
      {{"needed_bytes", absl::StrFormat("%d", needed)},
       {"available_bytes", absl::StrFormat("%d", available)},
       {"missing_bytes", absl::StrFormat("%d", needed - available)}});
}

}  // namespace maskkv::services
