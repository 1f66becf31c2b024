// SPDX-License-Identifier: Apache-2.0
#include "services/decode/refresher.h"

#include <utility>

namespace maskkv::decode {

Refresher::Refresher(Prefill prefill, StepLoop& loop)
    : prefill_(std::move(prefill)),
      loop_(loop),
      thread_([this](const std::stop_token& stop) { Run(stop); }) {}

void Refresher::Order(RefreshOrder order) {
  {
    const std::lock_guard lock(mu_);
    orders_.push_back(std::move(order));
  }
  ordered_.notify_one();
}

void Refresher::Run(const std::stop_token& stop) {
  while (true) {
    RefreshOrder order;
    {
      std::unique_lock lock(mu_);
      if (!ordered_.wait(lock, stop, [this] { return !orders_.empty(); })) return;
      if (stop.stop_requested()) return;
      order = std::move(orders_.front());
      orders_.pop_front();
    }
    loop_.Refreshed(order.id, prefill_(order.response, stop));
  }
}

}  // namespace maskkv::decode
