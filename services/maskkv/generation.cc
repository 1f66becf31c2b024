// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/generation.h"

#include <chrono>

#include "core/base/status_macros.h"
#include "services/maskkv/command.h"

namespace maskkv::cli {
namespace {

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

absl::Status CancelledIfInterrupted() {
  return Interrupted() ? absl::CancelledError("interrupted") : absl::OkStatus();
}

}  // namespace

absl::StatusOr<PrefilledPrompt> PrefillPrompt(ModelHost& host, std::span<const std::int32_t> prompt,
                                              std::int64_t masks,
                                              const engine::EvictionPlan& plan) {
  MASKKV_RETURN_IF_ERROR(
      engine::ValidatePrompt(host.config(), prompt, masks, host.transformer().max_positions()));
  const auto start = Clock::now();
  const std::vector<engine::Row> rows =
      engine::PromptThenMasks(prompt, masks, host.config().mask_id);
  engine::PrefillRequest request;
  request.rows = rows;
  request.plan = plan;
  request.kv_dtype = host.compute();
  request.after_layer = [](std::int64_t, std::int64_t) { return CancelledIfInterrupted(); };
  auto entry = std::make_shared<engine::HeapKvEntry>();
  engine::Prefiller prefiller(host.transformer());
  MASKKV_ASSIGN_OR_RETURN(engine::PrefillResult result, prefiller.Run(request, *entry));
  return PrefilledPrompt{std::move(entry), std::move(result), Since(start)};
}

absl::StatusOr<Generation> Generate(ModelHost& host, std::span<const std::int32_t> prompt,
                                    const engine::GenerateParams& params,
                                    const std::optional<engine::EvictionPlan>& plan,
                                    const StepObserver& after_step) {
  MASKKV_RETURN_IF_ERROR(engine::Validate(params));
  Generation generation;
  engine::DecodeRequest request;
  request.prompt_tokens = static_cast<std::int64_t>(prompt.size());
  request.params = params;
  if (plan) {
    MASKKV_ASSIGN_OR_RETURN(generation.prefill,
                            PrefillPrompt(host, prompt, params.gen_length, *plan));
    request.cache = generation.prefill->entry;
  } else {
    request.prompt.assign(prompt.begin(), prompt.end());
  }

  engine::Decoder decoder(host.transformer());
  MASKKV_ASSIGN_OR_RETURN(const engine::RequestId id, decoder.Add(std::move(request)));
  const engine::Canvas& canvas = *decoder.Find(id);
  while (decoder.running() > 0) {
    MASKKV_RETURN_IF_ERROR(CancelledIfInterrupted());
    const auto start = Clock::now();
    std::vector<engine::StepEvent> events = decoder.Step();
    generation.step_seconds.push_back(Since(start));
    MASKKV_RETURN_IF_ERROR(events.front().status);
    if (after_step) after_step(events.front(), canvas);
    generation.steps.push_back(std::move(events.front()));
  }
  generation.tokens = canvas.Answer();
  generation.finish_reason = canvas.finish_reason();
  return generation;
}

}  // namespace maskkv::cli
