// SPDX-License-Identifier: Apache-2.0
//
// Renews what is held and gives back what is not wanted any more, in the background, so that
// neither waits for an answer. One thread of its own; what is to be done are functions, so it knows
// no network. Thread safe.
#ifndef MASKKV_SERVICES_COMMON_LEASE_KEEPER_H_
#define MASKKV_SERVICES_COMMON_LEASE_KEEPER_H_

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>

namespace maskkv::services {

class LeaseKeeper {
 public:
  using Task = std::function<void()>;

  explicit LeaseKeeper(std::chrono::milliseconds renew_every);
  ~LeaseKeeper();
  LeaseKeeper(const LeaseKeeper&) = delete;
  LeaseKeeper& operator=(const LeaseKeeper&) = delete;

  // Runs `renew` once a period until the lease is released.
  void Keep(const std::string& lease, Task renew);
  // No more renewals of `lease` begin; `release` runs soon. "" names none.
  void Release(const std::string& lease, Task release);
  // Every release that was asked for before is done.
  void Flush();
  // Runs the releases that wait and ends the thread; later ones are dropped. Idempotent.
  void Stop();

 private:
  struct Held {
    Task renew;
    std::chrono::steady_clock::time_point renew_at;
  };
  void Work();
  // REQUIRES: lock holds mu_; it is released while tasks run.
  void RunReleases(std::unique_lock<std::mutex>& lock);

  const std::chrono::milliseconds renew_every_;

  std::mutex mu_;
  std::condition_variable changed_, released_;
  std::map<std::string, Held> leases_;  // guarded by mu_, as what follows
  std::deque<Task> releases_;
  bool releasing_ = false;
  bool stopping_ = false;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_LEASE_KEEPER_H_
