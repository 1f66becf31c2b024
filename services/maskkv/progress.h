// SPDX-License-Identifier: Apache-2.0
//
// A progress bar on standard error, redrawn in place when that is a terminal; silent elsewhere.
// Not thread safe.
#ifndef MASKKV_SERVICES_MASKKV_PROGRESS_H_
#define MASKKV_SERVICES_MASKKV_PROGRESS_H_

#include <chrono>
#include <cstdint>
#include <string>

namespace maskkv::cli {

// `cells` characters, filled in proportion to done / all.
std::string Bar(std::int64_t done, std::int64_t all, int cells = 24);

class ProgressBar {
 public:
  // label: what is counted, "samples".
  ProgressBar(std::string label, std::int64_t all);
  // Clears the line.
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void Advance(std::int64_t by = 1);

 private:
  void Draw() const;

  const std::string label_;
  const std::int64_t all_;
  const bool terminal_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::int64_t done_ = 0;
};

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_PROGRESS_H_
