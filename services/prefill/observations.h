// SPDX-License-Identifier: Apache-2.0
//
// What prefills tell the budget controller: means over a period, then forgotten. Only prefills
// whose amount was the plan's count: what a request asked for says nothing about the plan. Thread
// safe; the clock is injected.
#ifndef MASKKV_SERVICES_PREFILL_OBSERVATIONS_H_
#define MASKKV_SERVICES_PREFILL_OBSERVATIONS_H_

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "core/base/clock.h"
#include "core/engine/prefill.h"

namespace maskkv::v1 {
class ReportRequest;
}

namespace maskkv::prefill {

class Observations {
 public:
  Observations(std::int64_t layers, std::int64_t kv_heads, const Clock& clock);

  void AddForward(const engine::PrefillResult& result);
  void AddWait(Duration waited);

  // Fills period and observation of everything since the last call, and starts anew. longest_wait:
  // of those that wait now.
  void Take(const std::string& model_fingerprint, std::int64_t waiting, Duration longest_wait,
            v1::ReportRequest& report);

 private:
  void Clear();

  const std::size_t layers_, kv_heads_;
  const Clock& clock_;

  std::mutex mu_;  // guards what follows
  TimePoint since_;
  std::int64_t prefills_ = 0;
  double mass_ = 0;                 // sums over prefills
  std::vector<double> layer_mass_;  // (layers)
  std::vector<double> preference_;  // (layers * kv_heads)
  Duration longest_wait_{};
};

}  // namespace maskkv::prefill

#endif  // MASKKV_SERVICES_PREFILL_OBSERVATIONS_H_
