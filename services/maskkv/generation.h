// SPDX-License-Identifier: Apache-2.0
//
// One prompt answered: prefill, then steps until the canvas is decided, with what was measured on
// the way. Shared by generate, evaluate and bench.
#ifndef MASKKV_SERVICES_MASKKV_GENERATION_H_
#define MASKKV_SERVICES_MASKKV_GENERATION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/engine/decode.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "services/maskkv/model_host.h"

namespace maskkv::cli {

// A compressed prompt.
struct PrefilledPrompt {
  std::shared_ptr<const engine::HeapKvEntry> entry;
  engine::PrefillResult result;
  double seconds = 0;
};

// Prefills prompt + masks by `plan` into the heap; the entry is of host.pairs().
// rope_scale: of model::ResolveRopeScale.
absl::StatusOr<PrefilledPrompt> PrefillPrompt(ModelHost& host, std::span<const std::int32_t> prompt,
                                              std::int64_t masks, const engine::EvictionPlan& plan,
                                              double rope_scale = 1);

// The same of one forward for several plans, in their order. `seconds` is that of all together.
absl::StatusOr<std::vector<PrefilledPrompt>> PrefillPromptFor(
    ModelHost& host, std::span<const std::int32_t> prompt, std::int64_t masks,
    std::span<const engine::EvictionPlan> plans, double rope_scale = 1);

// The prompt prefilled with a response that was given or that is under way, which makes it a
// refresh (core/engine/refresh.h). suffix: the prompt after the response. Errors: of the engine.
absl::StatusOr<PrefilledPrompt> RefreshPrompt(ModelHost& host, std::span<const std::int32_t> prompt,
                                              std::span<const std::int32_t> response,
                                              const engine::EvictionPlan& plan,
                                              double rope_scale = 1,
                                              std::span<const std::int32_t> suffix = {});

// What an answer fills in between. Nothing: masks at the prompt's end.
struct Infill {
  std::vector<std::int32_t> canvas;  // (gen_length) or empty, the mask id where nothing is decided
  std::vector<std::int32_t> suffix;  // of the prompt, after the answer
};

// A prompt of `tokens` masks, for guidance (engine::GenerateParams::cfg_scale), prefilled alike.
// Errors: of the engine.
absl::StatusOr<PrefilledPrompt> PrefillMaskedPrompt(ModelHost& host, std::int64_t tokens,
                                                    std::int64_t masks,
                                                    const engine::EvictionPlan& plan,
                                                    double rope_scale = 1);

struct Generation {
  struct Refresh {
    std::size_t before = 0;  // index of the first step over the new entry
    double seconds = 0;
    double kept_mass = 0;  // of the prefill
  };

  std::optional<PrefilledPrompt> prefill;  // absent without a cache
  std::optional<PrefilledPrompt>
      unconditional;  // of the masked prompt; absent without guidance too
  std::vector<engine::StepEvent> steps;
  std::vector<double> step_seconds;
  std::vector<Refresh> refreshes;
  std::vector<std::int32_t> tokens;  // the answer up to, without, the first end token
  std::int64_t canvas_length = 0;    // in the end
  engine::FinishReason finish_reason = engine::FinishReason::kNone;
  double rope_scale = 1;
};

using StepObserver = std::function<void(const engine::StepEvent&, const engine::Canvas&)>;

// plan absent: no cache, the whole canvas in every step.
// Errors: of the engines; CANCELLED after SIGINT or SIGTERM.
absl::StatusOr<Generation> Generate(ModelHost& host, std::span<const std::int32_t> prompt,
                                    const engine::GenerateParams& params,
                                    const std::optional<engine::EvictionPlan>& plan,
                                    const StepObserver& after_step = {}, double rope_scale = 1,
                                    const Infill& infill = {});

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_GENERATION_H_
