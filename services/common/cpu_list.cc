// SPDX-License-Identifier: Apache-2.0
#include "services/common/cpu_list.h"

#include <charconv>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace maskkv::services {
namespace {

absl::Status Malformed(std::string_view found) {
  return absl::InvalidArgumentError(
      absl::StrFormat("expected a list of CPUs as 0-3,8, found %s", found));
}

// Takes the number that `text` starts with; false if it starts with none that an int holds.
bool TakeNumber(std::string_view& text, int& number) {
  if (text.empty() || text.front() < '0' || text.front() > '9') return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

bool Take(std::string_view& text, char wanted) {
  if (!text.starts_with(wanted)) return false;
  text.remove_prefix(1);
  return true;
}

struct Range {
  int first = 0;
  int last = 0;
  int step = 1;
};

// NUMBER, FIRST-LAST or FIRST-LAST:STEP.
bool ParseRange(std::string_view text, Range& range) {
  if (!TakeNumber(text, range.first)) return false;
  range.last = range.first;
  if (Take(text, '-')) {
    if (!TakeNumber(text, range.last) || range.last < range.first) return false;
    if (Take(text, ':') && (!TakeNumber(text, range.step) || range.step < 1)) return false;
  }
  return text.empty();
}

}  // namespace

absl::StatusOr<kernels::CpuList> ParseCpuList(std::string_view text) {
  if (text.empty()) return Malformed("nothing");
  kernels::CpuList cpus;
  std::vector<bool> named(kernels::kMostCpus);
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::string_view part = text.substr(begin, text.find(',', begin) - begin);
    begin += part.size() + 1;
    Range range;
    if (!ParseRange(part, range)) return Malformed(text);
    if (range.last >= kernels::kMostCpus) {
      return absl::InvalidArgumentError(absl::StrFormat("expected CPUs from 0 to %d, found %d",
                                                        kernels::kMostCpus - 1, range.last));
    }
    // The step may be as large as an int.
    for (std::int64_t cpu = range.first; cpu <= range.last; cpu += range.step) {
      const auto at = static_cast<std::size_t>(cpu);
      if (named[at]) {
        return absl::InvalidArgumentError(
            absl::StrFormat("expected every CPU once, found %d again in %s", cpu, text));
      }
      named[at] = true;
      cpus.push_back(static_cast<int>(cpu));
    }
  }
  return cpus;
}

std::string FormatCpuList(std::span<const int> cpus) {
  std::string text;
  for (std::size_t first = 0; first < cpus.size();) {
    std::size_t last = first;
    while (last + 1 < cpus.size() && cpus[last + 1] == cpus[last] + 1) ++last;
    absl::StrAppend(&text, text.empty() ? "" : ",", cpus[first]);
    if (last > first) absl::StrAppend(&text, "-", cpus[last]);
    first = last + 1;
  }
  return text;
}

}  // namespace maskkv::services
