// SPDX-License-Identifier: Apache-2.0
#include "services/decode/request_gate.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "services/common/call.h"

namespace maskkv::decode {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kShortestRetry{100}, kLongestRetry{10'000};

}  // namespace

absl::StatusOr<RequestGate::Pass> RequestGate::Enter() {
  const std::lock_guard lock(mu_);
  if (closed_) return services::DrainingError();
  const TimePoint now = clock_.Now();
  if (arrivals_.size() < capacity_) {
    arrivals_.insert(now);
    return Pass(this, now);
  }
  // There will be room when the oldest has begun: about the time it has waited so far is a guess.
  const auto waited = arrivals_.empty()
                          ? milliseconds(0)
                          : std::chrono::duration_cast<milliseconds>(now - *arrivals_.begin());
  return WithRetryAfter(
      MakeError(absl::StatusCode::kResourceExhausted, "QUEUE_FULL",
                absl::StrFormat("queue: expected room for a request, found %d of %d waiting",
                                arrivals_.size(), capacity_),
                {{"waiting", absl::StrFormat("%d", arrivals_.size())},
                 {"capacity", absl::StrFormat("%d", capacity_)}}),
      std::clamp(waited, kShortestRetry, kLongestRetry));
}

void RequestGate::Leave(TimePoint at) {
  const std::lock_guard lock(mu_);
  arrivals_.erase(arrivals_.find(at));
  if (arrivals_.empty()) empty_.notify_all();
}

void RequestGate::Close(milliseconds wait) {
  std::unique_lock lock(mu_);
  closed_ = true;
  empty_.wait_for(lock, wait, [this] { return arrivals_.empty(); });
}

std::size_t RequestGate::waiting() const {
  const std::lock_guard lock(mu_);
  return arrivals_.size();
}

Duration RequestGate::LongestWait() const {
  const std::lock_guard lock(mu_);
  return arrivals_.empty() ? Duration::zero() : clock_.Now() - *arrivals_.begin();
}

}  // namespace maskkv::decode
