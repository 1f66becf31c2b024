// SPDX-License-Identifier: Apache-2.0
#include "services/decode/event_proto.h"

#include <chrono>

#include "maskkv/v1/decode.pb.h"
#include "maskkv/v1/prefill.pb.h"

namespace maskkv::decode {
namespace {

void FillToken(const engine::Prediction& prediction, v1::Token& token) {
  token.set_position(prediction.position);
  token.set_id(prediction.token);
  token.set_confidence(prediction.confidence);
  token.set_log_probability(prediction.log_probability);
}

v1::FinishReason ReasonOf(EndReason reason) {
  switch (reason) {
    case EndReason::kStop:
      return v1::FINISH_REASON_STOP;
    case EndReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case EndReason::kStopString:
      return v1::FINISH_REASON_STOP_STRING;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

}  // namespace

void FillStep(std::size_t sample, const StepUpdate& update, v1::Step& step) {
  step.set_sample(static_cast<std::int32_t>(sample));
  step.set_step(update.step.step);
  for (const engine::Prediction& committed : update.step.committed) {
    FillToken(committed, *step.add_committed());
  }
  for (const engine::Prediction& provisional : update.step.provisional) {
    FillToken(provisional, *step.add_provisional());
  }
  step.set_text(update.text);
  step.set_grown(update.step.grown);
  if (update.step.kept_mass) step.set_kept_mass(*update.step.kept_mass);
  if (!update.fresh) return;
  const v1::PrefillResponse& prefill = *update.fresh->prefill;
  v1::Refreshed& refreshed = *step.mutable_refreshed();
  *refreshed.mutable_handle() = prefill.handle();
  *refreshed.mutable_kept() = prefill.kept();
  refreshed.set_entry_bytes(prefill.entry_bytes());
  refreshed.set_entry_digest(prefill.provenance().entry_digest());
  refreshed.set_cached(prefill.cached());
  refreshed.set_wait_ms(Milliseconds(update.fresh->waited));
}

void FillFinished(std::size_t sample, const SequenceEnd& end, const RequestFigures& figures,
                  v1::Finished& finished) {
  finished.set_sample(static_cast<std::int32_t>(sample));
  finished.set_finish_reason(ReasonOf(end.reason));
  finished.mutable_tokens()->Add(end.tokens.begin(), end.tokens.end());
  finished.set_text(end.text);
  v1::Usage& usage = *finished.mutable_usage();
  usage.set_prompt_tokens(figures.prompt_tokens);
  usage.set_answer_tokens(static_cast<std::int64_t>(end.tokens.size()));
  usage.set_steps(end.steps);
  usage.set_rows(end.rows);
  usage.set_kept_pairs(figures.kept_pairs);
  usage.set_entry_bytes(figures.entry_bytes);
  usage.set_full_bytes(figures.full_bytes);
  usage.set_canvas_length(end.canvas_length);
  usage.set_refreshes(end.refreshes);
  usage.set_response_cache_bytes(static_cast<std::uint64_t>(end.response_cache_bytes));
  usage.set_reused_rows(end.reused_rows);
  v1::Timings& timings = *finished.mutable_timings();
  timings.set_queue_ms(figures.queue_ms + Milliseconds(end.waited));
  timings.set_prefill_ms(figures.prefill_ms);
  timings.set_map_ms(figures.map_ms);
  timings.set_first_token_ms(figures.first_token_ms);
  timings.set_decode_ms(1e3 * end.step_seconds);
  timings.set_total_ms(figures.total_ms);
  timings.set_refresh_ms(Milliseconds(end.refreshing));
}

}  // namespace maskkv::decode
