// SPDX-License-Identifier: Apache-2.0
#include "services/decode/step_loop.h"

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <utility>

#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/transformer/transformer.h"
#include "kernels/parallel/worker_pool.h"
#include "services/common/call.h"
#include "services/decode/answer_text.h"

namespace maskkv::decode {
namespace {

// How often requests are looked at while none steps.
constexpr std::chrono::milliseconds kIdleLook{20};

// Wakes the loop. Groups keep it alive: they may outlive the loop.
class Signal {
 public:
  void Raise() {
    const std::lock_guard lock(mu_);
    raised_ = true;
    cv_.notify_one();
  }
  void Wait() {
    std::unique_lock lock(mu_);
    cv_.wait(lock, [this] { return raised_; });
    raised_ = false;
  }
  void WaitFor(std::chrono::milliseconds wait) {
    std::unique_lock lock(mu_);
    cv_.wait_for(lock, wait, [this] { return raised_; });
    raised_ = false;
  }

 private:
  std::mutex mu_;
  std::condition_variable cv_;
  bool raised_ = false;
};

EndReason ReasonOf(const AnswerText& answer, engine::FinishReason reason) {
  if (answer.stopped()) return EndReason::kStopString;
  return reason == engine::FinishReason::kStop ? EndReason::kStop : EndReason::kLength;
}

// One sequence as the loop keeps it.
struct Sequence {
  std::shared_ptr<EventQueue> queue;
  std::size_t index = 0;          // in its group
  engine::DecodeRequest request;  // until the decoder has it
  AnswerText answer;
  TimePoint submitted;
  std::optional<engine::RequestId> engine_id;
  std::int64_t canvases = 1;  // in the batch: two of a guided one
  std::int64_t canvas_length = 0;
  std::optional<TimePoint> refresh_due;  // since when it waits for another entry
  std::optional<FreshEntry> fresh;       // until its first step
  SequenceEnd end;                       // filled as it goes
};

}  // namespace

struct StepLoop::Impl {
  Impl(const transformer::Weights& weights, const model::Tokenizer* the_tokenizer,
       const StepLoopOptions& the_options, const StepMetrics& the_metrics, const Clock& the_clock)
      : options(the_options),
        tokenizer(the_tokenizer),
        mask_id(weights.config().mask_id),
        metrics(the_metrics),
        clock(the_clock),
        pool(the_options.pool),
        transformer(weights, pool, the_options.max_positions),
        decoder(transformer),
        schedule(the_options.limits, the_clock) {}

  void Run();
  void DropUnwanted();
  void TakeRefreshed();
  void Swap(SequenceId id, absl::StatusOr<FreshEntry> entry);
  void Apply(const StepDecision& decision);
  void Start(SequenceId id);
  void Step();
  void Handle(engine::StepEvent event, double seconds);
  // The sequence's memory is freed, then its reader is told.
  void End(SequenceId id, absl::Status status);

  const StepLoopOptions options;
  const model::Tokenizer* const tokenizer;
  const std::int32_t mask_id;
  const StepMetrics metrics;
  const Clock& clock;
  const std::shared_ptr<Signal> signal = std::make_shared<Signal>();

  // The loop's thread only.
  kernels::WorkerPool pool;
  std::optional<kernels::WorkerPool::Seat> seat;  // while the loop runs
  transformer::Transformer transformer;
  engine::Decoder decoder;
  std::map<SequenceId, Sequence> sequences;
  std::map<engine::RequestId, SequenceId> by_engine_id;

  mutable std::mutex mu;
  StepSchedule schedule;                                                     // guarded by mu
  std::map<SequenceId, Sequence> submitted;                                  // guarded by mu
  std::vector<std::pair<SequenceId, absl::StatusOr<FreshEntry>>> refreshed;  // guarded by mu
  bool stopping = false;                                                     // guarded by mu

  std::thread thread;  // last: it uses all of the above
};

void StepLoop::Impl::Run() {
  seat.emplace(pool);
  while (true) {
    DropUnwanted();
    TakeRefreshed();
    StepDecision decision;
    StepCounts counts;
    {
      // What the schedule knows and what is here change together.
      const std::lock_guard lock(mu);
      sequences.merge(submitted);
      if (stopping) break;
      for (const auto& [id, sequence] : sequences) {
        schedule.SetRoom(id, sequence.queue->HasRoom(sequence.index));
      }
      decision = schedule.Decide();
      counts = schedule.counts();
    }
    metrics.waiting_for_place.Set(static_cast<double>(counts.waiting));
    metrics.waiting_displaced.Set(static_cast<double>(counts.displaced));
    metrics.waiting_for_reader.Set(static_cast<double>(counts.stalled));
    Apply(decision);
    if (decoder.running() > 0) {
      Step();
    } else if (sequences.empty()) {
      signal->Wait();
    } else {
      signal->WaitFor(kIdleLook);
    }
  }
  const absl::Status draining = services::DrainingError();
  while (!sequences.empty()) End(sequences.begin()->first, draining);
  seat.reset();
}

void StepLoop::Impl::DropUnwanted() {
  std::vector<std::pair<SequenceId, absl::Status>> unwanted;
  for (const auto& [id, sequence] : sequences) {
    absl::Status status = sequence.queue->Alive();
    if (!status.ok()) unwanted.emplace_back(id, std::move(status));
  }
  for (auto& [id, status] : unwanted) End(id, std::move(status));
}

void StepLoop::Impl::TakeRefreshed() {
  decltype(refreshed) arrived;
  {
    const std::lock_guard lock(mu);
    arrived.swap(refreshed);
  }
  for (auto& [id, entry] : arrived) {
    if (sequences.contains(id)) Swap(id, std::move(entry));
  }
}

void StepLoop::Impl::Swap(SequenceId id, absl::StatusOr<FreshEntry> entry) {
  if (!entry.ok()) return End(id, entry.status());
  Sequence& sequence = sequences.at(id);
  MASKKV_CHECK(sequence.refresh_due.has_value(), "an entry that was ordered");
  const absl::Status swapped = decoder.SwapCache(*sequence.engine_id, std::move(entry->view));
  if (!swapped.ok()) return End(id, swapped);
  entry->waited = clock.Now() - *sequence.refresh_due;
  metrics.refreshes.Add();
  metrics.refresh_seconds.Observe(std::chrono::duration<double>(entry->waited).count());
  ++sequence.end.refreshes;
  sequence.end.refreshing += entry->waited;
  sequence.refresh_due.reset();
  sequence.fresh = *std::move(entry);
}

void StepLoop::Impl::Apply(const StepDecision& decision) {
  for (const SequenceId id : decision.timed_out) End(id, schedule.TimedOutError());
  for (const SequenceId id : decision.stalled) {
    const std::shared_ptr<EventQueue> queue = sequences.at(id).queue;
    End(id, schedule.StalledError());
    // The RPC library may start a thread for it, which is not to inherit the CPU.
    seat.reset();
    queue->Abandon(schedule.StalledError());
    seat.emplace(pool);
  }
  for (const SequenceId id : decision.pause) {
    const absl::Status paused = decoder.SetPaused(*sequences.at(id).engine_id, true);
    MASKKV_CHECK(paused.ok(), "the decoder has what steps");
  }
  for (const SequenceId id : decision.start) Start(id);
}

void StepLoop::Impl::Start(SequenceId id) {
  Sequence& sequence = sequences.at(id);
  if (sequence.engine_id) {
    const absl::Status resumed = decoder.SetPaused(*sequence.engine_id, false);
    MASKKV_CHECK(resumed.ok(), "the decoder has what was paused");
    return;
  }
  sequence.end.waited = clock.Now() - sequence.submitted;
  const absl::StatusOr<engine::RequestId> added = decoder.Add(std::move(sequence.request));
  if (!added.ok()) return End(id, added.status());
  sequence.engine_id = *added;
  by_engine_id[*added] = id;
}

void StepLoop::Impl::Step() {
  std::vector<engine::StepEvent> events;
  const TimePoint asked = clock.Now();
  {
    const schedule::ScopedTurn turn(options.turns.get(), schedule::Side::kStep);
    metrics.turns.Observe(turn.wait());
    const TimePoint start = clock.Now();
    events = decoder.Step();
    metrics.step_seconds.Observe(std::chrono::duration<double>(clock.Now() - start).count());
  }
  // A sequence's own times are its reader's: with the wait.
  const double seconds = std::chrono::duration<double>(clock.Now() - asked).count();
  metrics.steps.Add();
  metrics.batch_size.Observe(static_cast<double>(events.size()));
  for (engine::StepEvent& event : events) Handle(std::move(event), seconds);
}

void StepLoop::Impl::Handle(engine::StepEvent event, double seconds) {
  const SequenceId id = by_engine_id.at(event.request);
  Sequence& sequence = sequences.at(id);
  ++sequence.end.steps;
  // What is recomputed of the prompt is not counted.
  const std::int64_t all = sequence.canvases * sequence.canvas_length;
  const std::int64_t rows = std::min(event.rows, all);
  const std::int64_t reused = all - rows;
  sequence.end.rows += rows;
  sequence.end.reused_rows += reused;
  sequence.end.step_seconds += seconds;
  metrics.rows_computed.Add(static_cast<double>(rows));
  metrics.rows_reused.Add(static_cast<double>(reused));
  const std::int64_t grown = event.response_cache_bytes - sequence.end.response_cache_bytes;
  if (grown > 0) {
    metrics.response_cache_bytes.Add(static_cast<double>(grown));
    sequence.end.response_cache_bytes += grown;
  }
  if (!event.status.ok()) return End(id, event.status);
  sequence.end.committed += std::ssize(event.committed);
  sequence.canvas_length += event.grown;
  sequence.answer.Grow(event.grown);
  StepUpdate update;
  update.text = sequence.answer.Commit(event.committed);
  const bool finished =
      event.finish_reason != engine::FinishReason::kNone || sequence.answer.stopped();
  sequence.end.reason = ReasonOf(sequence.answer, event.finish_reason);
  update.step = std::move(event);
  update.fresh = std::exchange(sequence.fresh, std::nullopt);
  const bool refresh = update.step.refresh_due && !finished;
  sequence.queue->Push(sequence.index, std::move(update));
  if (finished) return End(id, absl::OkStatus());
  if (!refresh) return;
  sequence.refresh_due = clock.Now();
  const std::span<const std::int32_t> canvas = decoder.Find(*sequence.engine_id)->tokens();
  sequence.queue->Refresh({id, {canvas.begin(), canvas.end()}});
}

void StepLoop::Impl::End(SequenceId id, absl::Status status) {
  const auto node = sequences.extract(id);
  Sequence& sequence = node.mapped();
  if (sequence.engine_id) {
    by_engine_id.erase(*sequence.engine_id);
    const absl::Status removed = decoder.Remove(*sequence.engine_id);
    MASKKV_CHECK(removed.ok(), "the decoder has what was started");
    metrics.response_cache_bytes.Add(-static_cast<double>(sequence.end.response_cache_bytes));
  }
  sequence.request = {};  // its entry is freed before anybody is told
  {
    const std::lock_guard lock(mu);
    schedule.Leave(id);
  }
  sequence.end.status = std::move(status);
  sequence.end.canvas_length = sequence.canvas_length;
  sequence.end.tokens = sequence.answer.tokens();
  sequence.end.text = sequence.answer.text();
  sequence.queue->End(sequence.index, std::move(sequence.end));
}

StepLoop::StepLoop(const transformer::Weights& weights, const model::Tokenizer* tokenizer,
                   const StepLoopOptions& options, const StepMetrics& metrics, const Clock& clock)
    : impl_(std::make_unique<Impl>(weights, tokenizer, options, metrics, clock)) {
  impl_->thread = std::thread([impl = impl_.get()] { impl->Run(); });
}

StepLoop::~StepLoop() {
  {
    const std::lock_guard lock(impl_->mu);
    impl_->stopping = true;
  }
  impl_->signal->Raise();
  impl_->thread.join();
}

absl::StatusOr<std::unique_ptr<SequenceGroup>> StepLoop::Submit(GroupSpec spec) {
  for (const engine::DecodeRequest& request : spec.sequences) {
    MASKKV_RETURN_IF_ERROR(engine::Validate(request.params));
    MASKKV_CHECK(!request.params.refreshes() || spec.refresh, "somebody refreshes");
  }
  EventQueueOptions options;
  options.sequences = spec.sequences.size();
  options.capacity = impl_->options.event_queue;
  options.alive = std::move(spec.alive);
  options.abandon = std::move(spec.abandon);
  options.refresh = std::move(spec.refresh);
  options.on_room = [signal = impl_->signal] { signal->Raise(); };
  auto queue = std::make_shared<EventQueue>(std::move(options));
  {
    const std::lock_guard lock(impl_->mu);
    absl::StatusOr<std::vector<SequenceId>> ids =
        impl_->schedule.Join(spec.priority, static_cast<std::int64_t>(spec.sequences.size()));
    if (!ids.ok()) return ids.status();
    for (std::size_t i = 0; i < ids->size(); ++i) {
      engine::DecodeRequest& request = spec.sequences[i];
      const bool ends = !request.params.whole_canvas;
      AnswerText answer(impl_->tokenizer, request.params.gen_length,
                        ends ? request.params.stop_ids : std::vector<std::int32_t>(), spec.stop);
      if (!request.response.empty()) answer.Start(request.response, impl_->mask_id);
      Sequence sequence{.queue = queue,
                        .index = i,
                        .request = std::move(request),
                        .answer = std::move(answer),
                        .submitted = impl_->clock.Now(),
                        .engine_id = std::nullopt,
                        .canvases = 1,
                        .canvas_length = 0,
                        .refresh_due = {},
                        .fresh = {},
                        .end = {}};
      const engine::GenerateParams& params = sequence.request.params;
      sequence.canvases = params.guided() ? 2 : 1;
      sequence.canvas_length = params.gen_length;
      impl_->submitted.emplace((*ids)[i], std::move(sequence));
    }
  }
  impl_->signal->Raise();
  return std::make_unique<SequenceGroup>(std::move(queue));
}

void StepLoop::Refreshed(std::uint64_t order, absl::StatusOr<FreshEntry> entry) {
  {
    const std::lock_guard lock(impl_->mu);
    impl_->refreshed.emplace_back(order, std::move(entry));
  }
  impl_->signal->Raise();
}

StepLoop::State StepLoop::state() const {
  const std::lock_guard lock(impl_->mu);
  return {impl_->schedule.counts(), impl_->schedule.LongestWait()};
}

}  // namespace maskkv::decode
