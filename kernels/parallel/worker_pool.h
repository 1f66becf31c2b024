// SPDX-License-Identifier: Apache-2.0
//
// WorkerPool: a fixed team of threads that runs the items of one loop at a time. It is the only
// source of parallelism in the kernels: every worker limits OpenMP to one thread, so a library
// primitive called from a loop body stays on the worker that called it.
//
// Ownership: the pool owns its threads; the destructor stops and joins them. Loop bodies and what
// they refer to belong to the caller, who is blocked until the last item is done. Thread safety:
// one caller at a time, any thread; a second concurrent or nested ParallelFor ends the process
// (MASKKV_REQUIRE). Invariant: between calls no worker holds an item or the body.
//
// A thread that wakes late, on a busy machine, misses the loop and delays nobody: the caller waits
// only for workers that entered. Items are claimed through an atomic counter, so which worker runs
// an item changes from run to run. A body therefore writes only what its item owns and uses
// `worker` for scratch memory alone; then results depend neither on the thread count nor on timing,
// nor on where threads run: CPUs and memory policy decide about time alone.
#ifndef MASKKV_KERNELS_PARALLEL_WORKER_POOL_H_
#define MASKKV_KERNELS_PARALLEL_WORKER_POOL_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "kernels/base/function_ref.h"
#include "kernels/parallel/cpus.h"
#include "kernels/parallel/memory_policy.h"

namespace maskkv::kernels {

struct PoolOptions {
  int threads = 1;
  // Worker i runs on cpus[i] and nowhere else: `threads` different ones. Empty: the system decides.
  CpuList cpus{};
  // Of memory that workers touch first.
  MemoryPlacement memory{};
};

class WorkerPool {
 public:
  using Body = FunctionRef<void(std::int64_t item, int worker)>;

  // The place of worker 0: while it lives, the calling thread runs on the first of the pool's CPUs,
  // and memory that it touches first lies as the pool's does. Whoever calls ParallelFor should sit
  // down for as long as it computes; a loop of a caller that stands works all the same. Threads
  // that a sitting thread starts inherit its CPU. Costs a few system calls, nothing at all in a
  // pool without CPUs and policy. Create and destroy it on one thread; the pool outlives it. What
  // the system refuses is left as it was.
  class Seat {
   public:
    explicit Seat(const WorkerPool& pool);
    ~Seat();
    Seat(const Seat&) = delete;
    Seat& operator=(const Seat&) = delete;

   private:
    CpuList before_;  // empty: not moved
    ScopedMemoryPolicy memory_;
  };

  // A team of workers: the caller of ParallelFor and threads - 1 threads of the pool's own.
  // REQUIRES: threads >= 1; cpus is empty or has `threads` entries. Throws std::system_error if the
  // system refuses a thread, or a thread its CPU; a memory policy that it refuses is done without.
  explicit WorkerPool(PoolOptions options);
  explicit WorkerPool(int threads) : WorkerPool(PoolOptions{.threads = threads}) {}
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;
  ~WorkerPool();

  int threads() const { return options_.threads; }

  // Whether who waits polls for a moment before it sleeps: only where every worker can have a CPU,
  // by the affinity of the thread that made the pool (or the pool's CPUs) and by the quota of the
  // control groups. Polling takes the CPU that the other side needs otherwise.
  bool polls() const { return spins_ > 0; }

  // Calls body(item, worker) exactly once for every item in [0, items), worker in [0, threads()),
  // and returns when all calls have. The caller is worker 0. What the bodies wrote is visible to
  // the caller afterwards. items == 0 does nothing. Allocates nothing. REQUIRES: items >= 0; not
  // called from a body; the body throws nothing (an exception ends the process).
  void ParallelFor(std::int64_t items, Body body);

  // Ends the process unless the pool is idle and consistent. Call it between loops only.
  void CheckInvariants() const;

 private:
  void WorkerMain(int worker);
  void RunItems(int worker) noexcept;
  bool Enter();
  void Leave();
  void CloseAndWait();
  void StopTeam();

  // Constant after construction.
  const PoolOptions options_;
  const int spins_;
  std::vector<std::thread> team_;

  // The current loop: written by the caller while the gate is closed and nobody is inside, read by
  // workers inside the gate.
  const Body* body_ = nullptr;
  std::int64_t items_ = 0;

  // Set while a ParallelFor runs; guards against concurrent and nested calls.
  std::atomic<bool> busy_{false};
  std::atomic<bool> stop_{false};
  // Items are claimed with relaxed increments: claiming orders nothing but itself.
  alignas(64) std::atomic<std::int64_t> next_item_{0};
  // Incremented to announce a loop or the end; idle workers wait on it. It orders only stop_
  // (release, acquire): what belongs to a loop is ordered by the gate.
  alignas(64) std::atomic<std::uint32_t> announced_{0};
  // kOpen while workers may enter, plus the number of workers inside. Opening is a release and
  // entering an acquire; leaving is a release and the caller acquires the empty gate.
  alignas(64) std::atomic<std::uint32_t> gate_{0};
};

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_PARALLEL_WORKER_POOL_H_
