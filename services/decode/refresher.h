// SPDX-License-Identifier: Apache-2.0
//
// Refreshes of one request's entries: takes the step loop's orders and has the prefills made, one
// after another on a thread of its own, so that neither the loop nor the reader of events waits for
// them. What came of an order goes back to the loop. Orders wait in the order of coming; their
// number is bounded by the request's sequences, each of which waits for its own.
//
// Destroying it ends the prefill under way and forgets the orders. Thread safe.
#ifndef MASKKV_SERVICES_DECODE_REFRESHER_H_
#define MASKKV_SERVICES_DECODE_REFRESHER_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "services/decode/step_loop.h"

namespace maskkv::decode {

class Refresher {
 public:
  // An entry for a response as it stands; ends soon once a stop is requested.
  using Prefill = std::function<absl::StatusOr<FreshEntry>(
      const std::vector<std::int32_t>& response, const std::stop_token& stop)>;

  // The loop is borrowed.
  Refresher(Prefill prefill, StepLoop& loop);

  void Order(RefreshOrder order);

 private:
  void Run(const std::stop_token& stop);

  const Prefill prefill_;
  StepLoop& loop_;

  std::mutex mu_;
  std::condition_variable_any ordered_;
  std::deque<RefreshOrder> orders_;  // guarded by mu_
  std::jthread thread_;              // last: it uses the others
};

}  // namespace maskkv::decode

#endif  // MASKKV_SERVICES_DECODE_REFRESHER_H_
