// SPDX-License-Identifier: Apache-2.0
#include "services/common/machine.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/common/cpu_list.h"

namespace maskkv::services {
namespace {

// A list of the kernel's; nullopt if the text is none. An empty line is an empty list.
std::optional<kernels::CpuList> ListOf(std::string line) {
  absl::StripAsciiWhitespace(&line);
  if (line.empty()) return kernels::CpuList();
  absl::StatusOr<kernels::CpuList> list = ParseCpuList(line);
  if (!list.ok()) return std::nullopt;
  return *std::move(list);
}

std::optional<kernels::CpuList> ReadList(const std::string& path) {
  std::string line;
  std::ifstream file(path);
  if (!std::getline(file, line)) return std::nullopt;
  return ListOf(line);
}

// Nodes that the process may have memory of.
std::optional<kernels::CpuList> AllowedNodes(const std::string& root) {
  constexpr std::string_view kField = "Mems_allowed_list:";
  std::ifstream status(root + "/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(kField)) return ListOf(line.substr(kField.size()));
  }
  return std::nullopt;
}

std::vector<NumaNode> ReadNodes(const std::string& root) {
  const std::string folder = root + "/sys/devices/system/node";
  const std::optional<kernels::CpuList> with_memory = ReadList(folder + "/has_memory");
  if (!with_memory) return {};
  const kernels::CpuList allowed = AllowedNodes(root).value_or(*with_memory);
  std::vector<NumaNode> nodes;
  for (const int id : *with_memory) {
    if (std::ranges::find(allowed, id) == allowed.end()) continue;
    const std::string cpus = absl::StrCat(folder, "/node", id, "/cpulist");
    nodes.push_back({id, ReadList(cpus).value_or(kernels::CpuList())});
  }
  return nodes;
}

}  // namespace

Machine ReadMachine(const std::string& root) {
  return {.online = ReadList(root + "/sys/devices/system/cpu/online").value_or(kernels::CpuList()),
          .allowed = kernels::CpusOfThread(),
          .usable = kernels::UsableCpus(root),
          .nodes = ReadNodes(root)};
}

}  // namespace maskkv::services
