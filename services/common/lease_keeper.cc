// SPDX-License-Identifier: Apache-2.0
#include "services/common/lease_keeper.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace maskkv::services {

using std::chrono::steady_clock;

LeaseKeeper::LeaseKeeper(std::chrono::milliseconds renew_every)
    : renew_every_(renew_every), thread_([this] { Work(); }) {}

LeaseKeeper::~LeaseKeeper() { Stop(); }

void LeaseKeeper::Keep(const std::string& lease, Task renew) {
  {
    const std::lock_guard lock(mu_);
    leases_[lease] = {std::move(renew), steady_clock::now() + renew_every_};
  }
  changed_.notify_all();
}

void LeaseKeeper::Release(const std::string& lease, Task release) {
  {
    const std::lock_guard lock(mu_);
    if (stopping_) return;
    leases_.erase(lease);
    releases_.push_back(std::move(release));
  }
  changed_.notify_all();
}

void LeaseKeeper::Flush() {
  std::unique_lock lock(mu_);
  released_.wait(lock, [&] { return releases_.empty() && !releasing_; });
}

void LeaseKeeper::Stop() {
  {
    const std::lock_guard lock(mu_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void LeaseKeeper::RunReleases(std::unique_lock<std::mutex>& lock) {
  while (!releases_.empty()) {
    {
      const Task release = std::move(releases_.front());
      releases_.pop_front();
      releasing_ = true;
      lock.unlock();
      release();
    }
    lock.lock();
    releasing_ = false;
  }
  released_.notify_all();
}

void LeaseKeeper::Work() {
  std::unique_lock lock(mu_);
  for (;;) {
    RunReleases(lock);
    if (stopping_) return;
    const steady_clock::time_point now = steady_clock::now();
    steady_clock::time_point next = now + renew_every_;
    std::vector<Task> due;
    for (auto& [lease, held] : leases_) {
      if (held.renew_at <= now) {
        held.renew_at = now + renew_every_;
        due.push_back(held.renew);
      }
      next = std::min(next, held.renew_at);
    }
    if (due.empty()) {
      changed_.wait_until(lock, next);
      continue;
    }
    lock.unlock();
    for (const Task& renew : due) renew();
    due.clear();
    lock.lock();
  }
}

}  // namespace maskkv::services
