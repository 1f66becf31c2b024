// SPDX-License-Identifier: Apache-2.0
//
// What a policy's budgets cost on prompts without labels, measured against the run that keeps every
// pair. For each prompt one forward makes the entry with every pair and one a plan; the greedy
// decode over the whole entry is the reference. At every step of it, on the reference's canvas,
// each plan's logits are set beside the reference's at the masked positions of the block:
//
//   agreement    the most likely token is the same
//   divergence   KL(p || q) = sum_t p_t (log p_t - log q_t), nats, p the reference's softmax over
//                the ids that may be drawn (all but the mask id), in f64
//   equal answer the plan's own decode, left alone, gives the same tokens
//
// Not thread safe; borrows the transformer.
#ifndef MASKKV_CORE_ENGINE_QUALITY_H_
#define MASKKV_CORE_ENGINE_QUALITY_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/budget/quality_curve.h"
#include "core/engine/canvas_logits.h"
#include "core/engine/eviction_plan.h"
#include "core/engine/generate_params.h"
#include "core/engine/heap_kv.h"
#include "core/transformer/transformer.h"
#include "kernels/base/dtype.h"

namespace maskkv::engine {

// How one row of logits stands to another.
struct LogitComparison {
  double divergence = 0;  // >= 0
  bool agrees = false;
};

// reference, other: (vocab_rows) f32. Ties of the most likely token go to the lowest id.
// REQUIRES: equal sizes, at least one id that is not `forbidden`, finite values.
LogitComparison CompareLogits(std::span<const float> reference, std::span<const float> other,
                              std::int32_t forbidden);

class QualityMeter {
 public:
  // plans: one a budget, ascending; entries are of `kv_dtype`. params: greedy (temperature 0).
  QualityMeter(transformer::Transformer& transformer, std::vector<EvictionPlan> plans,
               const GenerateParams& params, kernels::DType kv_dtype);

  // Adds one prompt. poll: called between forwards; a status that is not OK stops and is returned.
  // Errors: of the engines (the counts are as before then); DATA_LOSS if logits are no numbers.
  absl::Status Add(std::span<const std::int32_t> prompt, const std::function<absl::Status()>& poll,
                   double rope_scale = 1);

  std::int64_t prompts() const { return prompts_; }
  // Means over the prompts added, a point a plan. REQUIRES: prompts() >= 1.
  std::vector<budget::QualityPoint> Points() const;

  void CheckInvariants() const;

 private:
  struct Sum {
    std::int64_t predictions = 0, agreed = 0, equal_answers = 0;
    double divergence = 0, kept_mass = 0;
  };
  using Entries = std::vector<std::shared_ptr<const HeapKvEntry>>;

  // Every pair's entry first, then one a plan; adds their kept mass.
  absl::StatusOr<Entries> Prefill(std::span<const std::int32_t> prompt, double rope_scale,
                                  std::vector<Sum>& sums) const;
  absl::Status CompareSteps(std::span<const std::int32_t> prompt, const Entries& entries,
                            const std::function<absl::Status()>& poll, std::vector<Sum>& sums,
                            std::vector<std::int32_t>& answer);
  absl::Status CompareAnswers(std::span<const std::int32_t> prompt, const Entries& entries,
                              const std::function<absl::Status()>& poll,
                              std::span<const std::int32_t> answer, std::vector<Sum>& sums) const;

  transformer::Transformer& transformer_;
  const std::vector<EvictionPlan> plans_;
  const GenerateParams params_;
  const kernels::DType kv_dtype_;
  CanvasLogits forward_;
  std::int64_t prompts_ = 0;
  std::vector<Sum> sums_;  // a plan each
};

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_QUALITY_H_
