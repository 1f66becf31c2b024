// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/generation.h"

#include <chrono>

#include "core/base/status_macros.h"
#include "core/engine/prompt.h"
#include "services/common/memory.h"
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

absl::StatusOr<std::vector<PrefilledPrompt>> PrefillRows(
    ModelHost& host, std::span<const engine::Row> rows, std::span<const engine::EvictionPlan> plans,
    double rope_scale) {
  const auto start = Clock::now();
  engine::PrefillForward forward;
  forward.rows = rows;
  forward.rope_scale = rope_scale;
  forward.after_layer = [](std::int64_t, std::int64_t) { return CancelledIfInterrupted(); };
  std::vector<std::shared_ptr<engine::HeapKvEntry>> entries;
  std::vector<engine::PrefillCut> cuts;
  for (const engine::EvictionPlan& plan : plans) {
    entries.push_back(std::make_shared<engine::HeapKvEntry>());
    cuts.push_back({plan, host.pairs(), entries.back().get()});
  }
  engine::Prefiller prefiller(host.transformer());
  MASKKV_ASSIGN_OR_RETURN(std::vector<engine::PrefillResult> results,
                          prefiller.RunCuts(forward, cuts));
  const double seconds = Since(start);
  std::vector<PrefilledPrompt> prompts;
  for (std::size_t i = 0; i < plans.size(); ++i) {
    prompts.push_back({std::move(entries[i]), std::move(results[i]), seconds});
  }
  return prompts;
}

}  // namespace

absl::StatusOr<std::vector<PrefilledPrompt>> PrefillPromptFor(
    ModelHost& host, std::span<const std::int32_t> prompt, std::int64_t masks,
    std::span<const engine::EvictionPlan> plans, double rope_scale) {
  MASKKV_RETURN_IF_ERROR(
      engine::ValidatePrompt(host.config(), prompt, masks, host.transformer().max_positions()));
  return PrefillRows(host, engine::PromptThenMasks(prompt, masks, host.config()), plans,
                     rope_scale);
}

absl::StatusOr<PrefilledPrompt> RefreshPrompt(ModelHost& host, std::span<const std::int32_t> prompt,
                                              std::span<const std::int32_t> response,
                                              const engine::EvictionPlan& plan, double rope_scale,
                                              std::span<const std::int32_t> suffix) {
  MASKKV_ASSIGN_OR_RETURN(
      std::vector<PrefilledPrompt> prompts,
      PrefillRows(host, engine::PromptThenResponse(prompt, response, host.config(), suffix),
                  {&plan, 1}, rope_scale));
  return std::move(prompts.front());
}

absl::StatusOr<PrefilledPrompt> PrefillMaskedPrompt(ModelHost& host, std::int64_t tokens,
                                                    std::int64_t masks,
                                                    const engine::EvictionPlan& plan,
                                                    double rope_scale) {
  const std::vector<std::int32_t> prompt(static_cast<std::size_t>(tokens), host.config().mask_id);
  MASKKV_ASSIGN_OR_RETURN(std::vector<PrefilledPrompt> prompts,
                          PrefillRows(host, engine::PromptThenMasks(prompt, masks, host.config()),
                                      {&plan, 1}, rope_scale));
  return std::move(prompts.front());
}

absl::StatusOr<PrefilledPrompt> PrefillPrompt(ModelHost& host, std::span<const std::int32_t> prompt,
                                              std::int64_t masks, const engine::EvictionPlan& plan,
                                              double rope_scale) {
  MASKKV_ASSIGN_OR_RETURN(std::vector<PrefilledPrompt> prompts,
                          PrefillPromptFor(host, prompt, masks, {&plan, 1}, rope_scale));
  return std::move(prompts.front());
}

absl::StatusOr<Generation> Generate(ModelHost& host, std::span<const std::int32_t> prompt,
                                    const engine::GenerateParams& params,
                                    const std::optional<engine::EvictionPlan>& plan,
                                    const StepObserver& after_step, double rope_scale,
                                    const Infill& infill) {
  MASKKV_RETURN_IF_ERROR(engine::Validate(params));
  Generation generation;
  engine::DecodeRequest request;
  request.prompt_tokens = static_cast<std::int64_t>(prompt.size());
  request.params = params;
  request.rope_scale = generation.rope_scale = rope_scale;
  request.response = infill.canvas;
  request.response.resize(static_cast<std::size_t>(params.gen_length), host.config().mask_id);
  request.suffix_tokens = std::ssize(infill.suffix);
  MASKKV_RETURN_IF_ERROR(engine::ValidatePrompt(host.config(), prompt, params.gen_length,
                                                host.transformer().max_positions(), infill.suffix));
  if (plan) {
    MASKKV_ASSIGN_OR_RETURN(generation.prefill, RefreshPrompt(host, prompt, request.response, *plan,
                                                              rope_scale, infill.suffix));
    request.prompt = engine::RecomputedTail(host.config(), prompt);
    request.cache = generation.prefill->entry;
    if (params.guided()) {
      MASKKV_ASSIGN_OR_RETURN(
          generation.unconditional,
          PrefillMaskedPrompt(host, request.prompt_tokens, params.gen_length, *plan, rope_scale));
      request.unconditional = generation.unconditional->entry;
    }
  } else {
    request.prompt.assign(prompt.begin(), prompt.end());
    request.suffix = infill.suffix;
  }

  if (params.caches_response()) {
    const std::int64_t rows =
        std::ssize(request.prompt) + params.gen_length + std::ssize(request.suffix);
    MASKKV_RETURN_IF_ERROR(services::CheckBytesFit(
        engine::ResponseCache::BytesOf(host.config(), rows), "the response cache"));
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
    if (!generation.steps.back().refresh_due) continue;
    MASKKV_ASSIGN_OR_RETURN(
        const PrefilledPrompt fresh,
        RefreshPrompt(host, prompt, canvas.tokens(), *plan, rope_scale, infill.suffix));
    MASKKV_RETURN_IF_ERROR(decoder.SwapCache(id, fresh.entry));
    generation.refreshes.push_back(
        {generation.steps.size(), fresh.seconds, fresh.result.kept_mass()});
  }
  generation.tokens = canvas.Answer();
  generation.canvas_length = canvas.length();
  generation.finish_reason = canvas.finish_reason();
  return generation;
}

}  // namespace maskkv::cli
