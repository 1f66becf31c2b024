// SPDX-License-Identifier: Apache-2.0
//
// The metrics of a running process, fetched over HTTP and read from Prometheus' text format 0.0.4.
// A value. What a peer sends is bounded and never trusted: lines that are no samples are skipped.
#ifndef MASKKV_SERVICES_MASKKV_METRICS_PAGE_H_
#define MASKKV_SERVICES_MASKKV_METRICS_PAGE_H_

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace maskkv::cli {

struct Sample {
  std::map<std::string, std::string> labels;
  double value = 0;
};

class MetricsPage {
 public:
  static constexpr std::size_t kMaxBytes = std::size_t{16} << 20;

  MetricsPage() = default;
  static MetricsPage Parse(std::string_view text);

  // GET http://ADDRESS/metrics, at most 5 s. Errors: UNAVAILABLE (nobody answers, another status
  // than 200), RESOURCE_EXHAUSTED (larger than kMaxBytes); the message names the address.
  static absl::StatusOr<MetricsPage> Fetch(const std::string& address);

  // Every sample of this one in the other's place too: processes side by side.
  void Add(const MetricsPage& other);

  // Whether there is any sample of the name.
  bool Has(std::string_view name) const { return samples_.contains(name); }
  // Sum of the samples of a name, of those with label = value where a label is named; 0 without
  // any.
  double Sum(std::string_view name, std::string_view label = "", std::string_view value = "") const;
  // Samples of a name.
  const std::vector<Sample>& Samples(std::string_view name) const;

 private:
  std::map<std::string, std::vector<Sample>, std::less<>> samples_;
};

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_METRICS_PAGE_H_
