// SPDX-License-Identifier: Apache-2.0
#include "kernels/parallel/worker_pool.h"

#include <omp.h>
#include <pthread.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "kernels/base/require.h"

namespace maskkv::kernels {
namespace {

// How long a waiting thread polls before it sleeps: tens of microseconds, about the serial part
// between two loops of a decode step. A sleep and a wake-up cost more than most loops of a small
// model.
constexpr int kSpins = 1000;

// The flag of WorkerPool::gate_; the bits below count workers.
constexpr std::uint32_t kOpen = 1U << 31;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

int SpinsFor(const PoolOptions& options) {
  // Workers with CPUs of their own share them with nobody, but the quota counts for them too.
  const bool fits =
      options.cpus.empty() ? options.threads <= UsableCpus() : options.threads <= CpuQuota();
  return fits ? kSpins : 0;
}

// Limits OpenMP to the calling thread for a scope: libraries called from a loop body must not start
// their own team.
class SingleThreadedOpenMp {
 public:
  SingleThreadedOpenMp() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~SingleThreadedOpenMp() { omp_set_num_threads(before_); }
  SingleThreadedOpenMp(const SingleThreadedOpenMp&) = delete;
  SingleThreadedOpenMp& operator=(const SingleThreadedOpenMp&) = delete;

 private:
  const int before_;
};

}  // namespace

WorkerPool::Seat::Seat(const WorkerPool& pool) : memory_(pool.options_.memory) {
  if (pool.options_.cpus.empty()) return;
  before_ = CpusOfThread();
  if (SetCpusOfThread(::pthread_self(), std::span(pool.options_.cpus).first(1)) != 0) {
    before_.clear();
  }
}

WorkerPool::Seat::~Seat() {
  if (!before_.empty()) SetCpusOfThread(::pthread_self(), before_);
}

WorkerPool::WorkerPool(PoolOptions options)
    : options_(std::move(options)), spins_(SpinsFor(options_)) {
  const auto threads = static_cast<std::size_t>(std::max(options_.threads, 0));
  const CpuList& cpus = options_.cpus;
  MASKKV_REQUIRE(threads >= 1, "a pool needs a thread");
  MASKKV_REQUIRE(cpus.empty() || cpus.size() == threads, "a CPU for each worker");
  team_.reserve(threads - 1);
  try {
    for (std::size_t worker = 1; worker < threads; ++worker) {
      team_.emplace_back([this, worker] { WorkerMain(static_cast<int>(worker)); });
      if (cpus.empty()) continue;
      const int error = SetCpusOfThread(team_.back().native_handle(), {&cpus[worker], 1});
      if (error != 0) throw std::system_error(error, std::generic_category(), "CPU of a worker");
    }
  } catch (...) {
    StopTeam();
    throw;
  }
}

WorkerPool::~WorkerPool() {
  MASKKV_REQUIRE(!busy_.load(std::memory_order_acquire), "pool destroyed inside a loop");
  StopTeam();
}

void WorkerPool::StopTeam() {
  stop_.store(true, std::memory_order_relaxed);  // published by the increment
  announced_.fetch_add(1, std::memory_order_release);
  announced_.notify_all();
  for (std::thread& thread : team_) thread.join();
}

void WorkerPool::ParallelFor(std::int64_t items, Body body) {
  MASKKV_REQUIRE(items >= 0, "negative number of items");
  MASKKV_REQUIRE(!busy_.exchange(true, std::memory_order_acquire), "concurrent or nested loop");
  const SingleThreadedOpenMp openmp;
  body_ = &body;
  items_ = items;
  next_item_.store(0, std::memory_order_relaxed);
  const bool alone = threads() == 1 || items <= 1;
  if (!alone) {
    gate_.store(kOpen, std::memory_order_release);
    announced_.fetch_add(1, std::memory_order_release);
    announced_.notify_all();
  }
  RunItems(0);
  if (!alone) CloseAndWait();
  body_ = nullptr;
  busy_.store(false, std::memory_order_release);
}

void WorkerPool::RunItems(int worker) noexcept {
  for (;;) {
    const std::int64_t item = next_item_.fetch_add(1, std::memory_order_relaxed);
    if (item >= items_) return;
    (*body_)(item, worker);
  }
}

bool WorkerPool::Enter() {
  std::uint32_t gate = gate_.load(std::memory_order_relaxed);
  while ((gate & kOpen) != 0) {
    if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire,
                                    std::memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

void WorkerPool::Leave() {
  if (gate_.fetch_sub(1, std::memory_order_release) == 1) gate_.notify_one();
}

void WorkerPool::CloseAndWait() {
  std::uint32_t inside = gate_.fetch_and(~kOpen, std::memory_order_acquire) & ~kOpen;
  for (int spin = 0; inside != 0 && spin < spins_; ++spin) {
    Pause();
    inside = gate_.load(std::memory_order_acquire);
  }
  while (inside != 0) {
    gate_.wait(inside, std::memory_order_acquire);
    inside = gate_.load(std::memory_order_acquire);
  }
}

void WorkerPool::WorkerMain(int worker) {
  omp_set_num_threads(1);
  const ScopedMemoryPolicy memory(options_.memory);
  std::uint32_t seen = 0;
  for (;;) {
    for (int spin = 0; spin < spins_; ++spin) {
      if (announced_.load(std::memory_order_relaxed) != seen) break;
      Pause();
    }
    announced_.wait(seen, std::memory_order_relaxed);
    seen = announced_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_relaxed)) return;
    // The announced loop may be over, or a later one may be open: any open loop will do.
    if (Enter()) {
      RunItems(worker);
      Leave();
    }
  }
}

void WorkerPool::CheckInvariants() const {
  MASKKV_REQUIRE(!busy_.load(), "a loop is running");
  MASKKV_REQUIRE(body_ == nullptr, "an idle pool holds a body");
  MASKKV_REQUIRE(gate_.load() == 0, "an idle pool's gate is open or occupied");
  MASKKV_REQUIRE(team_.size() + 1 == static_cast<std::size_t>(threads()), "a worker is missing");
}

}  // namespace maskkv::kernels
