// SPDX-License-Identifier: Apache-2.0
#include "services/common/placement.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/telemetry/log.h"
#include "services/common/cpu_list.h"

namespace maskkv::services {
namespace {

using kernels::CpuList;
using kernels::MemoryPlacement;
using kernels::MemoryPolicy;

constexpr std::string_view kNames[] = {"none", "interleave", "local"};  // by MemoryPolicy

bool Has(const CpuList& cpus, int cpu) { return std::ranges::find(cpus, cpu) != cpus.end(); }

// The CPUs that --cpus names, each good for this process.
absl::StatusOr<CpuList> CpusOf(const std::string& list, const Machine& machine) {
  const absl::StatusOr<CpuList> cpus = ParseCpuList(list);
  if (!cpus.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--cpus: ", cpus.status().message()));
  }
  for (const int cpu : *cpus) {
    const bool known = machine.online.empty() || Has(machine.online, cpu);
    if (known && Has(machine.allowed, cpu)) continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("--cpus: expected CPUs %s (%s), found %d",
                        known ? "that this process may run on" : "that the machine has online",
                        FormatCpuList(known ? machine.allowed : machine.online), cpu));
  }
  return cpus;
}

// Nodes with one of the CPUs, or all if none has.
std::vector<int> NodesOf(const CpuList& cpus, const std::vector<NumaNode>& nodes) {
  std::vector<int> near, all;
  for (const NumaNode& node : nodes) {
    all.push_back(node.id);
    const bool shared = std::ranges::any_of(node.cpus, [&](int cpu) { return Has(cpus, cpu); });
    if (shared) near.push_back(node.id);
  }
  return near.empty() ? all : near;
}

absl::StatusOr<MemoryPlacement> MemoryOf(const std::string& numa, const CpuList& cpus,
                                         const Machine& machine) {
  const auto* const name = std::ranges::find(kNames, numa.empty() ? kNames[0] : numa);
  if (name == std::end(kNames)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--numa: expected none, interleave or local, found %s", numa));
  }
  MemoryPlacement memory{.policy = static_cast<MemoryPolicy>(name - std::begin(kNames))};
  if (memory.policy != MemoryPolicy::kInterleave) return memory;
  memory.nodes = NodesOf(cpus.empty() ? machine.allowed : cpus, machine.nodes);
  if (memory.nodes.empty() || memory.nodes.back() >= kernels::kMostNodes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--numa: interleave: expected a kernel with NUMA nodes below %d, found %s",
                        kernels::kMostNodes, memory.nodes.empty() ? "none" : "others"));
  }
  return memory;
}

void LogPool(const kernels::PoolOptions& pool, const CpuList& allowed) {
  const std::string cpus = FormatCpuList(pool.cpus.empty() ? allowed : pool.cpus);
  const std::string others = FormatCpuList(CpusBeside(pool, allowed));
  const std::string nodes = FormatCpuList(pool.memory.nodes);
  telemetry::Log(telemetry::LogLevel::kInfo, "worker_pool",
                 {{"threads", static_cast<std::int64_t>(pool.threads)},
                  {"cpus", cpus},
                  {"pinned", !pool.cpus.empty()},
                  {"other_cpus", others},
                  {"numa", kNames[static_cast<std::size_t>(pool.memory.policy)]},
                  {"nodes", nodes}});
}

}  // namespace

void PlacementOptions::Declare(CLI::App& app) {
  const auto list = [](const std::string& text) {
    return std::string(ParseCpuList(text).status().message());
  };
  app.add_option("--cpus", cpus,
                 "CPUs of the worker threads, one each, as 0-3,8; others leave them alone [any]")
      ->check(CLI::Validator(list, ""))
      ->type_name("LIST");
  const auto policy = [](const std::string& text) {
    const bool known = std::ranges::find(kNames, text) != std::end(kNames);
    return known ? std::string()
                 : absl::StrFormat("expected one of none, interleave, local, found %s",
                                   text.empty() ? "nothing" : text);
  };
  app.add_option("--numa", numa,
                 "Memory of weights and scratch: interleave over the nodes of the CPUs, local to "
                 "the thread that touches it first, or as the system does [none]")
      ->check(CLI::Validator(policy, ""))
      ->type_name("POLICY");
}

absl::StatusOr<kernels::PoolOptions> PlacePool(const PlacementOptions& options,
                                               const Machine& machine) {
  kernels::PoolOptions pool{.threads = options.threads > 0 ? options.threads : machine.usable};
  if (!options.cpus.empty()) {
    MASKKV_ASSIGN_OR_RETURN(pool.cpus, CpusOf(options.cpus, machine));
    if (options.threads == 0) pool.threads = static_cast<int>(pool.cpus.size());
    if (pool.threads > static_cast<int>(pool.cpus.size())) {
      return absl::InvalidArgumentError(
          absl::StrFormat("--threads: expected at most one for each of --cpus %s, %d, found %d",
                          options.cpus, pool.cpus.size(), pool.threads));
    }
    pool.cpus.resize(static_cast<std::size_t>(pool.threads));
  }
  MASKKV_ASSIGN_OR_RETURN(pool.memory, MemoryOf(options.numa, pool.cpus, machine));
  return pool;
}

absl::StatusOr<kernels::PoolOptions> PlacePoolHere(const PlacementOptions& options) {
  const Machine machine = ReadMachine();
  MASKKV_ASSIGN_OR_RETURN(kernels::PoolOptions pool, PlacePool(options, machine));
  const kernels::ScopedMemoryPolicy tried(pool.memory);
  if (tried.error() != 0) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "--numa: %s: expected a system that lets a process choose where its memory lies, found: %s",
        options.numa, std::strerror(tried.error())));
  }
  LogPool(pool, machine.allowed);
  return pool;
}

CpuList CpusBeside(const kernels::PoolOptions& pool, const CpuList& allowed) {
  CpuList beside;
  if (pool.cpus.empty()) return beside;
  std::ranges::copy_if(allowed, std::back_inserter(beside),
                       [&](int cpu) { return !Has(pool.cpus, cpu); });
  return beside;
}

void LeaveCpusTo(const kernels::PoolOptions& pool) {
  const CpuList beside = CpusBeside(pool, kernels::CpusOfThread());
  if (!beside.empty()) kernels::SetCpusOfProcess(beside);
}

}  // namespace maskkv::services
