// SPDX-License-Identifier: Apache-2.0
#include "services/decode/event_queue.h"

#include <utility>

namespace maskkv::decode {

EventQueue::EventQueue(EventQueueOptions options)
    : options_(std::move(options)), steps_(options_.sequences) {}

absl::Status EventQueue::Alive() {
  const std::lock_guard lock(mu_);
  if (left_) return absl::CancelledError("the reader has left");
  return options_.alive ? options_.alive() : absl::OkStatus();
}

bool EventQueue::HasRoom(std::size_t sequence) const {
  const std::lock_guard lock(mu_);
  return steps_[sequence] < options_.capacity;
}

void EventQueue::Push(std::size_t sequence, StepUpdate update) {
  {
    const std::lock_guard lock(mu_);
    if (left_) return;
    ++steps_[sequence];
    events_.push_back({sequence, std::move(update)});
  }
  arrived_.notify_one();  // a reader that wakes finds the lock free
}

void EventQueue::End(std::size_t sequence, SequenceEnd end) {
  {
    const std::lock_guard lock(mu_);
    if (left_) return;
    events_.push_back({sequence, std::move(end)});
  }
  arrived_.notify_one();
}

void EventQueue::Refresh(RefreshOrder order) {
  const std::lock_guard lock(mu_);
  if (!left_) options_.refresh(std::move(order));
}

void EventQueue::Abandon(const absl::Status& status) {
  const std::lock_guard lock(mu_);
  if (!left_ && options_.abandon) options_.abandon(status);
}

std::optional<SequenceEvent> EventQueue::Pop(std::chrono::milliseconds wait) {
  std::optional<SequenceEvent> event;
  bool room = false;
  {
    std::unique_lock lock(mu_);
    if (!arrived_.wait_for(lock, wait, [this] { return !events_.empty(); })) return event;
    event = std::move(events_.front());
    events_.pop_front();
    if (std::holds_alternative<SequenceEnd>(event->what)) {
      ++ends_;
    } else {
      room = steps_[event->sequence]-- == options_.capacity;
    }
  }
  if (room && options_.on_room) options_.on_room();
  return event;
}

bool EventQueue::done() const {
  const std::lock_guard lock(mu_);
  return ends_ == options_.sequences;
}

void EventQueue::Leave() {
  const std::lock_guard lock(mu_);
  left_ = true;
  events_.clear();
}

}  // namespace maskkv::decode
