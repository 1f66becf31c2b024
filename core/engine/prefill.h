// SPDX-License-Identifier: Apache-2.0
//
// Prefill: one forward over prompt + masks, layer by layer. After a layer has run, the plan's
// voters have scored it (MaskKV's are the mask queries, equations 6 and 7), its budgets are cut,
// the kept pairs go into the sink and the layer's full K and V are dropped. With LayerRule::kOnline
// the budgets need every layer's importance first, so all K and V stay alive until the end; with
// kPool the pairs that may be kept wait until then (pool_stage.h). Eviction changes nothing for the
// layers above, so one forward can serve any number of plans (RunCuts).
//
// A forward over a document's copy (document_copy.h) computes the rows after the document alone;
// the document's pairs are candidates as ever, and none of its rows votes.
//
// A refresh is the same forward with the response as it stands: committed tokens are rows that
// others attend to and that do not vote (PromptThenResponse).
//
// Prefill commits nothing: every denoising step runs over the entry, the first too. So the last
// layer advances the rows that vote and those after them only, unless importance is measured.
//
// Not thread safe: a Prefiller uses the transformer's scratch memory and pool.
#ifndef MASKKV_CORE_ENGINE_PREFILL_H_
#define MASKKV_CORE_ENGINE_PREFILL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/engine/cut.h"
#include "core/engine/document_copy.h"
#include "core/engine/eviction_plan.h"
#include "core/engine/kv.h"
#include "core/engine/prompt.h"
#include "core/transformer/transformer.h"

namespace maskkv::engine {

struct PrefillForward {
  // Prompt rows first, then response rows, at least one of which votes; positions are free.
  std::span<const Row> rows;
  // rope_theta is multiplied by it (core/model/rope_scaling.h); the entries say so. 1: as trained.
  double rope_scale = 1;
  // K and V of the first prompt rows, which are then not computed; borrowed. Importance (kOnline)
  // is measured over the rows that are. Null: every row is computed.
  const DocumentCopy* document = nullptr;
  // Called after each layer with (layers done, layers), and, where layers are cut only after all
  // have run (kOnline), with (layers, layers) after each cut; a status that is not OK stops the
  // prefill and is returned: cancellation, deadlines, progress.
  std::function<absl::Status(std::int64_t, std::int64_t)> after_layer;
  // A tile is at most tile_rows rows (1 to transformer::kRowBlock) through the attention and the
  // rest of a layer, kRowBlock rows' keys and values, or one layer's eviction; rows of the prompt
  // that vote go block by block. Results are the same bits for any cut. tile_rows.h says how many.
  std::int64_t tile_rows = transformer::kRowBlock;
  // Called before each tile but the first, on the caller's thread, while the pool rests; it may
  // block, to leave the cores to others. A status that is not OK stops the prefill and is returned.
  std::function<absl::Status()> between_tiles;
  // Sees a layer's mask-query scores (kv_heads, rows), over all rows, before it is evicted. They
  // tell about the prompt: treat them like it.
  std::function<void(std::int64_t layer, std::span<const float> scores)> on_scores;
};

// A forward and the one entry to be made of it.
struct PrefillRequest : PrefillForward {
  EvictionPlan plan;
  kernels::DType kv_dtype = kernels::DType::kF32;  // of the entry
};

// One of several entries to be made of a forward. The sink belongs to the caller.
struct PrefillCut {
  EvictionPlan plan;
  kernels::DType kv_dtype = kernels::DType::kF32;
  KvSink* sink = nullptr;
};

struct PrefillPhases {  // seconds
  double forward = 0, score = 0, select = 0, pack = 0;
};

struct PrefillResult {
  std::int64_t prompt_tokens = 0;
  std::int64_t masks = 0;  // response rows that voted
  std::vector<LayerReport> layers;
  PrefillPhases phases;
  // Most bytes of uncompressed K and V alive at once: all layers' if a plan is online, else one's.
  std::int64_t peak_full_kv_bytes = 0;

  std::int64_t pairs() const;
  // Kept prompt score / all prompt score over layers and heads; 1 for an empty prompt.
  double kept_mass() const;
};

class Prefiller {
 public:
  explicit Prefiller(transformer::Transformer& transformer) : transformer_(transformer) {}

  // Errors: INVALID_ARGUMENT (rows, rope_scale, plan, voters that are rows of the document),
  // FAILED_PRECONDITION (a document of another model or rope_scale), RESOURCE_EXHAUSTED and others
  // from the sink, DATA_LOSS (NaN scores: a broken checkpoint), whatever after_layer returns. On an
  // error the sink is not finished.
  absl::StatusOr<PrefillResult> Run(const PrefillRequest& request, KvSink& sink);

  // Every cut's entry from one forward; results in the order of the cuts, entries bit for bit what
  // Run makes of each plan alone. Phases `forward` and `score` are those of the shared forward. If
  // one plan is online, peak memory and the calls of after_layer are as for that one.
  // Errors: as Run, of the first cut that fails.
  absl::StatusOr<std::vector<PrefillResult>> RunCuts(const PrefillForward& forward,
                                                     std::span<const PrefillCut> cuts);

  // Equation 8 for every layer over all rows, without an entry: what calibration averages.
  // rope_scale: as PrefillForward's. Errors: INVALID_ARGUMENT (rows, rope_scale).
  absl::StatusOr<std::vector<double>> MeasureImportance(std::span<const Row> rows,
                                                        double rope_scale = 1);

 private:
  struct Pass;  // one forward

  absl::Status CheckForward(std::span<const Row> rows, double rope_scale,
                            const DocumentCopy* document) const;
  std::unique_ptr<Pass> MakePass(std::span<const Row> rows, double rope_scale,
                                 const DocumentCopy* document);
  void Start(Pass& pass, std::span<const Row> rows);
  absl::Status BeginCuts(Pass& pass, std::span<const PrefillCut> cuts);
  absl::Status RunLayer(Pass& pass, std::int64_t layer, float* kv);
  void ProjectBlock(Pass& pass, std::int64_t layer, std::int64_t begin, std::int64_t end,
                    float* kv);
  // The end of the rows that are advanced with row `begin`, which begins a block or a tile of it.
  std::int64_t BlockEnd(const Pass& pass, std::int64_t begin) const;
  // Advances rows [begin, end), all of one role, and lets those vote that do.
  void AdvanceBlock(Pass& pass, std::int64_t layer, std::int64_t begin, std::int64_t end,
                    const float* kv);
  void ScoreMasks(Pass& pass, std::int64_t layer, const float* kv);
  // Evicts the layer for the cuts that are late, or for those that are not.
  absl::Status CutLayer(Pass& pass, std::span<const PrefillCut> cuts, bool late, std::int64_t layer,
                        const float* kv);
  absl::Status CutLate(Pass& pass, const PrefillForward& forward, std::span<const PrefillCut> cuts,
                       std::span<kernels::AlignedBuffer<float>> kv);
  // Writes what the pools of all layers keep.
  absl::Status CutPools(Pass& pass, std::span<const PrefillCut> cuts);
  absl::Status EvictLayer(Pass& pass, std::size_t cut_index, const PrefillCut& cut,
                          std::int64_t layer, const float* kv);

  transformer::Transformer& transformer_;
};

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_PREFILL_H_
