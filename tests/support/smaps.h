// SPDX-License-Identifier: Apache-2.0
//
// What Linux says of this process's mappings whose name holds a text, summed up.
#ifndef MASKKV_TESTS_SUPPORT_SMAPS_H_
#define MASKKV_TESTS_SUPPORT_SMAPS_H_

#include <cstdint>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

namespace maskkv::testing {

// Bytes by the fields of /proc/PID/smaps: "Rss", "Pss", "Private_Dirty", "FilePmdMapped", ...
inline std::map<std::string, std::int64_t> MappedBytes(const std::string& part_of_name) {
  std::ifstream smaps("/proc/self/smaps");
  std::map<std::string, std::int64_t> sums;
  bool counts = false;
  for (std::string line; std::getline(smaps, line);) {
    std::istringstream words(line);
    std::string field, unit;
    std::int64_t value = 0;
    words >> field;
    if (field.empty() || field.back() != ':') {
      counts = line.find(part_of_name) != std::string::npos;
    } else if (counts && words >> value >> unit && unit == "kB") {
      field.pop_back();
      sums[field] += value << 10;
    }
  }
  return sums;
}

}  // namespace maskkv::testing

#endif  // MASKKV_TESTS_SUPPORT_SMAPS_H_
