// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/evaluation_decode.h"

#include <chrono>
#include <cstddef>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "core/base/status_macros.h"
#include "core/engine/decode.h"
#include "core/engine/prompt.h"
#include "services/maskkv/command.h"
#include "services/maskkv/generation.h"

namespace maskkv::cli {
namespace {

using Clock = std::chrono::steady_clock;

// White space at the ends of an answer does not count.
std::string Trimmed(const std::string& text) {
  return std::string(absl::StripAsciiWhitespace(absl::string_view(text.data(), text.size())));
}

class Batch {
 public:
  Batch(ModelHost& host, const AskedQuestion& asked, std::span<const KeptPrompt> kept)
      : host_(host), asked_(asked), kept_(kept), decoder_(host.transformer()) {}

  absl::Status Add(Cell& cell) {
    engine::DecodeRequest request;
    request.prompt_tokens = std::ssize(asked_.prompt);
    request.params = cell.params;
    request.cache = asked_.entries[cell.kept];
    request.prompt = request.cache == nullptr
                         ? asked_.prompt
                         : engine::RecomputedTail(host_.config(), asked_.prompt);
    MASKKV_ASSIGN_OR_RETURN(const engine::RequestId id, decoder_.Add(std::move(request)));
    cells_[id] = &cell;
    return absl::OkStatus();
  }

  absl::Status Decode() {
    while (decoder_.running() > 0) {
      if (Interrupted()) return absl::CancelledError("interrupted");
      const auto start = Clock::now();
      const std::vector<engine::StepEvent> events = decoder_.Step();
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      for (const engine::StepEvent& event : events) {
        MASKKV_RETURN_IF_ERROR(event.status);
        Cell& cell = *cells_.at(event.request);
        ++cell.steps;
        cell.rows += event.rows;
        cell.reused_rows += event.reused_rows;
        cell.committed += std::ssize(event.committed);
        cell.seconds += seconds;
        if (event.refresh_due) MASKKV_RETURN_IF_ERROR(Refresh(event.request, cell));
      }
    }
    return absl::OkStatus();
  }

  void Judge() const {
    for (const auto& [id, cell] : cells_) {
      Cell::Count& count = cell->by_kind[asked_.question.kind];
      ++count.questions;
      const std::string answer = Trimmed(host_.Text(decoder_.Find(id)->Answer()));
      const bool correct = answer == Trimmed(asked_.question.answer);
      count.correct += correct ? 1 : 0;
      cell->outcomes.push_back(correct ? '1' : '0');
    }
  }

 private:
  absl::Status Refresh(engine::RequestId id, Cell& cell) {
    engine::EvictionPlan plan = kept_[cell.kept].plan;
    plan.random_seed = asked_.number;
    MASKKV_ASSIGN_OR_RETURN(const PrefilledPrompt fresh,
                            RefreshPrompt(host_, asked_.prompt, decoder_.Find(id)->tokens(), plan));
    ++cell.refreshes;
    cell.refresh_seconds += fresh.seconds;
    return decoder_.SwapCache(id, fresh.entry);
  }

  ModelHost& host_;
  const AskedQuestion& asked_;
  std::span<const KeptPrompt> kept_;
  engine::Decoder decoder_;
  std::map<engine::RequestId, Cell*> cells_;
};

}  // namespace

absl::Status DecodeCells(ModelHost& host, const AskedQuestion& asked,
                         std::span<const KeptPrompt> kept, bool alone, std::span<Cell> cells) {
  const std::size_t together = alone ? 1 : cells.size();
  for (std::size_t first = 0; first < cells.size(); first += together) {
    Batch batch(host, asked, kept);
    for (std::size_t i = first; i < first + together; ++i) {
      MASKKV_RETURN_IF_ERROR(batch.Add(cells[(i + asked.number) % cells.size()]));
    }
    MASKKV_RETURN_IF_ERROR(batch.Decode());
    batch.Judge();
  }
  return absl::OkStatus();
}

}  // namespace maskkv::cli
