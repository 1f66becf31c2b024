// SPDX-License-Identifier: Apache-2.0
//
// From scores to an entry, layer by layer: what a forward (prefill.h) and a vote over a document's
// copy (document_vote.h) do alike.
#ifndef MASKKV_CORE_ENGINE_CUT_H_
#define MASKKV_CORE_ENGINE_CUT_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/engine/eviction_plan.h"
#include "core/engine/keep.h"
#include "core/engine/kv.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::engine {

// What one layer kept. Per-head vectors have kv_heads entries.
struct LayerReport {
  std::vector<std::int64_t> pairs;
  std::vector<double> preference;   // equation 14, of the plan's voters
  std::vector<double> kept_mass;    // mask-query score of the kept pairs
  std::vector<double> prompt_mass;  // mask-query score of all prompt pairs
  double importance = 0;            // equation 8, measured by LayerRule::kOnline; else 0
};

LayerReport ReportOf(const KeptLayer& kept);

// What a plan gives each layer. importance: the prompt's own, read under kOnline alone.
absl::StatusOr<std::vector<std::int64_t>> LayerBudgets(const EvictionPlan& plan,
                                                       std::span<const double> importance,
                                                       std::int64_t layers,
                                                       std::int64_t prompt_tokens);

// Writes the kept rows of a layer into the sink. kv: the layer's full K and V, (rows, 2 * kv_heads
// * head_dim) f32; positions: of its rows. Errors: of the sink.
absl::Status WriteKept(kernels::WorkerPool& workers, const EntryShape& shape, std::int64_t layer,
                       const KeptLayer& kept, const float* kv,
                       std::span<const std::int32_t> positions, KvSink& sink);

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_CUT_H_
