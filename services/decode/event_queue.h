// SPDX-License-Identifier: Apache-2.0
//
// What happens to the sequences of one request, from the step loop to the request's handler: a
// bounded queue for each sequence, read as one in the order of happening. The loop never waits: it
// asks for room before a step. The reader waits with a bound. Ends always fit.
//
// The reader's callbacks (alive, abandon, refresh) are never called once Leave has returned, so
// they may refer to the handler's call. Thread safe: one loop, one reader.
#ifndef MASKKV_SERVICES_DECODE_EVENT_QUEUE_H_
#define MASKKV_SERVICES_DECODE_EVENT_QUEUE_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "core/base/clock.h"
#include "core/engine/decode.h"

namespace maskkv::v1 {
class PrefillResponse;
}

namespace maskkv::decode {

enum class EndReason : std::uint8_t {
  kStop,        // everything up to the first end token is decided
  kLength,      // the canvas is full
  kStopString,  // everything up to a stop string is decided
};

// Another entry of a sequence's prompt (core/engine/refresh.h).
struct FreshEntry {
  std::shared_ptr<const engine::KvView> view;  // gone once the sequence has it
  std::shared_ptr<const v1::PrefillResponse> prefill;
  Duration waited{};  // by the sequence; set by the loop
};

// Asks for one. `id` is the loop's, and of no other order that is open.
struct RefreshOrder {
  std::uint64_t id = 0;
  std::vector<std::int32_t> response;  // as it stands: the mask id where nothing is decided
};

struct StepUpdate {
  engine::StepEvent step;
  std::string text;                 // what the decided beginning of the answer grew by
  std::optional<FreshEntry> fresh;  // which this step was the first to run over
};

// The last of a sequence. Its memory has been freed.
struct SequenceEnd {
  absl::Status status;  // not OK: the sequence was given up, what follows is of the steps so far
  EndReason reason = EndReason::kLength;
  std::vector<std::int32_t> tokens;
  std::string text;
  std::int64_t steps = 0;
  std::int64_t rows = 0;                  // response rows computed in them
  std::int64_t reused_rows = 0;           // response rows taken over from earlier ones
  std::int64_t response_cache_bytes = 0;  // most that was held
  std::int64_t committed = 0;             // positions decided in them
  std::int64_t canvas_length = 0;
  double step_seconds = 0;  // sum over its steps
  Duration waited{};        // from Submit to its first step
  std::int64_t refreshes = 0;
  Duration refreshing{};  // sum of its waits for another entry
};

struct SequenceEvent {
  std::size_t sequence = 0;  // of the group
  std::variant<StepUpdate, SequenceEnd> what;
};

struct EventQueueOptions {
  std::size_t sequences = 1;
  std::size_t capacity = 16;                         // steps that wait to be read, a sequence
  std::function<absl::Status()> alive;               // whether the request is still wanted
  std::function<void(const absl::Status&)> abandon;  // frees a reader that is blocked elsewhere
  std::function<void()> on_room;                     // a queue that was full has room
  std::function<void(RefreshOrder)> refresh;         // starts a refresh; returns at once
};

class EventQueue {
 public:
  explicit EventQueue(EventQueueOptions options);

  // The loop's side.
  // OK, CANCELLED once the reader has left, or what `alive` says.
  absl::Status Alive();
  bool HasRoom(std::size_t sequence) const;
  void Push(std::size_t sequence, StepUpdate update);
  void End(std::size_t sequence, SequenceEnd end);
  void Refresh(RefreshOrder order);
  // Tells a reader that does not read why its sequence ended.
  void Abandon(const absl::Status& status);

  // The reader's side.
  // The next event; nullopt if none came within `wait`.
  std::optional<SequenceEvent> Pop(std::chrono::milliseconds wait);
  // Every sequence's end has been popped.
  bool done() const;
  void Leave();

 private:
  const EventQueueOptions options_;

  mutable std::mutex mu_;
  std::condition_variable arrived_;
  std::deque<SequenceEvent> events_;  // guarded by mu_, as all that follows
  std::vector<std::size_t> steps_;    // of each sequence in events_
  std::size_t ends_ = 0;              // popped
  bool left_ = false;
};

}  // namespace maskkv::decode

#endif  // MASKKV_SERVICES_DECODE_EVENT_QUEUE_H_
