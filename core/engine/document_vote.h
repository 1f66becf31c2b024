// SPDX-License-Identifier: Apache-2.0
//
// One entry of a document for questions that nobody has asked yet: several questions vote over the
// document's copy, each in a forward of its own rows and masks, their scores are combined before
// any budget is given, and what the combination keeps of the document serves the next question
// (which is recomputed in every step, PrefixView's case). Candidates are the document's pairs
// alone.
//
// Not thread safe.
#ifndef MASKKV_CORE_ENGINE_DOCUMENT_VOTE_H_
#define MASKKV_CORE_ENGINE_DOCUMENT_VOTE_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/engine/cut.h"
#include "core/engine/document_copy.h"
#include "core/engine/eviction_plan.h"
#include "core/engine/kv.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::engine {

// What becomes of the scores that several questions give one pair. A head's best pairs by kMax are
// in the union of those that the questions keep under the same number; by kMin, pairs that all of
// them look at come first: an intersection by degrees, which fills any budget.
enum class VoteCombination : std::uint8_t { kSum, kMax, kMin };

class CombinedVotes {
 public:
  // REQUIRES: all >= 1.
  CombinedVotes(std::int64_t layers, std::int64_t kv_heads, std::int64_t document_tokens,
                VoteCombination combination);

  // One question's scores of a layer, (kv_heads, keys), the document's keys first, as
  // PrefillForward::on_scores gives them. Every question adds every layer once.
  // REQUIRES: 0 <= layer < layers, keys >= document_tokens.
  // Errors: of CheckLayerScores.
  absl::Status Add(std::int64_t layer, std::span<const float> scores);

  std::int64_t layers() const { return std::ssize(combined_); }
  std::int64_t document_tokens() const { return document_tokens_; }
  // Questions that a layer has the scores of.
  std::int64_t questions(std::int64_t layer) const {
    return counts_[static_cast<std::size_t>(layer)];
  }

  // (kv_heads, document_tokens + 1): each pair's combined score, then that of everything else: a
  // question's scores of its own keys are summed first, and the sums combined.
  std::span<const float> Scores(std::int64_t layer) const {
    return combined_[static_cast<std::size_t>(layer)];
  }

 private:
  const std::int64_t kv_heads_;
  const std::int64_t document_tokens_;
  const VoteCombination combination_;
  std::vector<std::vector<float>> combined_;  // a layer: (kv_heads, document_tokens + 1)
  std::vector<std::int64_t> counts_;          // a layer
};

// What `plan` keeps of the document by these scores, written into the sink with the copy's shape
// and type. A head's preference (equation 14) is the document's share of its combined scores.
// after_layer as PrefillForward's; may be empty. Returns a report a layer.
// REQUIRES: at least one question has voted in every layer, about this document.
// Errors: INVALID_ARGUMENT (plan; it is not MaskKV's selection with masks as voters, or measures
// importance itself), of the sink, whatever after_layer returns. The sink is finished on success.
absl::StatusOr<std::vector<LayerReport>> CutDocument(
    kernels::WorkerPool& workers, const DocumentCopy& document, const CombinedVotes& votes,
    const EvictionPlan& plan, KvSink& sink,
    const std::function<absl::Status(std::int64_t, std::int64_t)>& after_layer = {});

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_DOCUMENT_VOTE_H_
