// SPDX-License-Identifier: Apache-2.0
#include "core/engine/document_vote.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/engine/keep.h"
#include "core/engine/pool_stage.h"
#include "kernels/base/aligned_buffer.h"

namespace maskkv::engine {
namespace {

float Combine(VoteCombination combination, float so_far, float next) {
  switch (combination) {
    case VoteCombination::kSum:
      return so_far + next;
    case VoteCombination::kMax:
      return std::max(so_far, next);
    case VoteCombination::kMin:
      break;
  }
  return std::min(so_far, next);
}

absl::Status CheckPlan(const EvictionPlan& plan, const EntryShape& shape) {
  MASKKV_RETURN_IF_ERROR(Validate(plan, shape.layers, shape.kv_heads));
  if (plan.selection != Selection::kMaskKv || plan.voters != Voters::kMasks) {
    return absl::InvalidArgumentError(
        "plan: expected masks as voters, whose scores are combined, found others");
  }
  if (plan.HoldsAllLayers()) {
    return absl::InvalidArgumentError(
        "plan: expected layer budgets that no forward measures, found online");
  }
  return absl::OkStatus();
}

}  // namespace

CombinedVotes::CombinedVotes(std::int64_t layers, std::int64_t kv_heads,
                             std::int64_t document_tokens, VoteCombination combination)
    : kv_heads_(kv_heads),
      document_tokens_(document_tokens),
      combination_(combination),
      combined_(static_cast<std::size_t>(layers)),
      counts_(static_cast<std::size_t>(layers)) {}

absl::Status CombinedVotes::Add(std::int64_t layer, std::span<const float> scores) {
  MASKKV_RETURN_IF_ERROR(CheckLayerScores(layer, {scores, scores}));
  const std::size_t keys = scores.size() / static_cast<std::size_t>(kv_heads_);
  const auto document = static_cast<std::size_t>(document_tokens_);
  MASKKV_CHECK(keys >= document, "the document's keys come first");
  const bool first = counts_[static_cast<std::size_t>(layer)]++ == 0;
  std::vector<float>& combined = combined_[static_cast<std::size_t>(layer)];
  combined.resize(static_cast<std::size_t>(kv_heads_) * (document + 1));
  const auto take = [&](float& so_far, float next) {
    so_far = first ? next : Combine(combination_, so_far, next);
  };
  for (std::int64_t head = 0; head < kv_heads_; ++head) {
    const auto own = scores.subspan(static_cast<std::size_t>(head) * keys, keys);
    float* const out = combined.data() + static_cast<std::size_t>(head) * (document + 1);
    for (std::size_t j = 0; j < document; ++j) take(out[j], own[j]);
    const auto rest = own.subspan(document);
    take(out[document], static_cast<float>(std::accumulate(rest.begin(), rest.end(), 0.0)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<LayerReport>> CutDocument(
    kernels::WorkerPool& workers, const DocumentCopy& document, const CombinedVotes& votes,
    const EvictionPlan& plan, KvSink& sink,
    const std::function<absl::Status(std::int64_t, std::int64_t)>& after_layer) {
  const EntryShape& shape = document.shape();
  const std::int64_t tokens = document.tokens();
  MASKKV_RETURN_IF_ERROR(CheckPlan(plan, shape));
  MASKKV_CHECK(votes.layers() == shape.layers && votes.document_tokens() == tokens,
               "votes about this document");
  const std::int64_t max_pairs = plan.MaxPairsAHead(tokens) * shape.kv_heads * shape.layers;
  MASKKV_ASSIGN_OR_RETURN(const std::vector<std::int64_t> budgets,
                          LayerBudgets(plan, {}, shape.layers, tokens));
  MASKKV_RETURN_IF_ERROR(sink.Begin(shape, max_pairs));
  std::unique_ptr<PoolStage> pool;
  if (plan.StagesPairs()) pool = std::make_unique<PoolStage>(shape, max_pairs);
  std::vector<std::int32_t> positions(static_cast<std::size_t>(tokens));
  std::iota(positions.begin(), positions.end(), 0);
  std::vector<LayerReport> reports;
  kernels::AlignedBuffer<float> kv(tokens * 2 * shape.kv_heads * shape.head_dim);
  for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
    MASKKV_CHECK(votes.questions(layer) >= 1, "every layer has votes");
    document.ReadLayer(workers, layer, kv.data());
    const LayerScores scores{votes.Scores(layer), votes.Scores(layer)};
    if (pool != nullptr) {
      MASKKV_RETURN_IF_ERROR(pool->AddLayer(workers, scores, tokens, kv.data()));
    } else {
      MASKKV_ASSIGN_OR_RETURN(const KeptLayer kept,
                              KeepPairs(plan, layer, budgets[static_cast<std::size_t>(layer)],
                                        shape.kv_heads, scores, tokens));
      MASKKV_RETURN_IF_ERROR(WriteKept(workers, shape, layer, kept, kv.data(), positions, sink));
      reports.push_back(ReportOf(kept));
    }
    if (after_layer) MASKKV_RETURN_IF_ERROR(after_layer(layer + 1, shape.layers));
  }
  for (std::int64_t layer = 0; pool != nullptr && layer < shape.layers; ++layer) {
    reports.push_back(ReportOf(pool->Kept(layer)));
    MASKKV_RETURN_IF_ERROR(pool->WriteLayer(positions, sink));
  }
  MASKKV_RETURN_IF_ERROR(sink.Finish());
  return reports;
}

}  // namespace maskkv::engine
