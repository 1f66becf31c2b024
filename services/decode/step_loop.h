// SPDX-License-Identifier: Apache-2.0
//
// The step loop: one thread that owns transformer, worker pool and decoder and advances every
// sequence that may step as one batch. Requests submit groups of sequences (the samples of one
// prompt) and read their events; sequences join and leave between steps. Which ones step is decided
// by StepSchedule; a sequence's tokens do not depend on it (core/engine/decode.h).
//
// A sequence whose entry is to be refreshed keeps its place and takes no step until Refreshed
// brings another one; the prefill is its group's business, on another thread.
//
// Between two steps the loop looks whether each request is still wanted, so that a cancelled one
// gives its memory back within a step. It sleeps while there is nothing to do.
//
// Ownership: borrows weights, tokenizer and clock; owns sequences until they end or their group is
// destroyed. Thread safe. Destroying it ends what is left with UNAVAILABLE (DRAINING); groups may
// outlive it.
#ifndef MASKKV_SERVICES_DECODE_STEP_LOOP_H_
#define MASKKV_SERVICES_DECODE_STEP_LOOP_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/clock.h"
#include "core/engine/decode.h"
#include "core/model/tokenizer.h"
#include "core/schedule/turns.h"
#include "core/transformer/weights.h"
#include "kernels/parallel/worker_pool.h"
#include "services/decode/event_queue.h"
#include "services/decode/metrics.h"
#include "services/decode/step_schedule.h"

namespace maskkv::decode {

struct StepLoopOptions {
  StepLimits limits;
  std::size_t event_queue = 16;  // events of a sequence that wait to be read
  kernels::PoolOptions pool{};
  std::int64_t max_positions = 0;  // of prompt and answer
  // Each step computes in its turn; null: whenever it can.
  std::shared_ptr<schedule::Turns> turns;
};

struct GroupSpec {
  std::vector<engine::DecodeRequest> sequences;  // at least one
  std::vector<std::string> stop;                 // none without a tokenizer
  std::int32_t priority = 0;
  // Called by the loop while the group exists; cheap. May be empty.
  std::function<absl::Status()> alive;
  // Called by the loop when a reader took no event for the stall limit, to free it where it is
  // blocked. May be empty.
  std::function<void(const absl::Status&)> abandon;
  // Called by the loop while the group exists, when a sequence waits for another entry: starts the
  // work, which ends with StepLoop::Refreshed, and returns at once. Needed if parameters refresh.
  std::function<void(RefreshOrder)> refresh;
};

// What one request reads. Destroying it gives up the sequences that have not ended. One reader.
class SequenceGroup {
 public:
  explicit SequenceGroup(std::shared_ptr<EventQueue> queue) : queue_(std::move(queue)) {}
  ~SequenceGroup() { queue_->Leave(); }
  SequenceGroup(const SequenceGroup&) = delete;
  SequenceGroup& operator=(const SequenceGroup&) = delete;

  // The next event of any sequence; nullopt if none came within `wait`.
  std::optional<SequenceEvent> Next(std::chrono::milliseconds wait) { return queue_->Pop(wait); }
  // Every sequence's SequenceEnd has been returned.
  bool done() const { return queue_->done(); }

 private:
  const std::shared_ptr<EventQueue> queue_;
};

class StepLoop {
 public:
  StepLoop(const transformer::Weights& weights, const model::Tokenizer* tokenizer,
           const StepLoopOptions& options, const StepMetrics& metrics, const Clock& clock);
  ~StepLoop();
  StepLoop(const StepLoop&) = delete;
  StepLoop& operator=(const StepLoop&) = delete;

  // All sequences of the group wait for places from now on. What the decoder does not accept ends
  // with its error.
  // Errors: RESOURCE_EXHAUSTED (QUEUE_FULL), INVALID_ARGUMENT (BAD_PRIORITY, parameters).
  absl::StatusOr<std::unique_ptr<SequenceGroup>> Submit(GroupSpec spec);

  // What came of an order: the entry, or the error that its sequence ends with. What nobody waits
  // for any more is dropped.
  void Refreshed(std::uint64_t order, absl::StatusOr<FreshEntry> entry);

  struct State {
    StepCounts counts;
    Duration longest_wait{};
  };
  State state() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace maskkv::decode

#endif  // MASKKV_SERVICES_DECODE_STEP_LOOP_H_
