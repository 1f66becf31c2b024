// SPDX-License-Identifier: Apache-2.0
//
// A step's batch where some of its requests keep features of their response (response_cache.h). In
// each layer the rows that are active there, of all requests, are gathered, so that the decoder
// advances them together; then they are put back, and the other rows of those requests add what is
// kept of them. A row's bits do not depend on the other rows.
//
// Whole: every row of the request has its K and V computed; in between: V of every row, K of those
// that its cache chooses. Owns scratch memory. Not thread safe: it uses the transformer's pool.
#ifndef MASKKV_CORE_ENGINE_FEATURE_BATCH_H_
#define MASKKV_CORE_ENGINE_FEATURE_BATCH_H_

#include <cstdint>
#include <span>
#include <vector>

#include "core/engine/response_cache.h"
#include "core/transformer/transformer.h"
#include "kernels/base/aligned_buffer.h"

namespace maskkv::engine {

class FeatureBatch {
 public:
  // One request's rows.
  struct Sequence {
    ResponseCache* cache = nullptr;  // null: it keeps none
    const kernels::RopeTable* rope = nullptr;
    std::int64_t first_row = 0;  // in the batch
    std::int64_t rows = 0;
    std::int64_t first_answer = 0;          // row of the batch that predicts answer position 0
    std::span<const std::int64_t> answers;  // positions that the last layer predicts
    std::int64_t active = 0;                // rows, in the layer in progress

    bool between() const { return cache != nullptr && !cache->whole(); }
  };
  // The decoder's, over all rows of the batch; those of requests in between come last.
  struct Rows {
    float* hidden = nullptr;  // (total, hidden)
    float* pairs = nullptr;   // (total, 2 * kv_width); K of rows in between undefined
    const std::int32_t* positions = nullptr;  // (total)
    std::int64_t whole = 0;
    std::int64_t total = 0;
  };

  explicit FeatureBatch(transformer::Transformer& transformer) : transformer_(transformer) {}

  // A step begins; then its sequences in the order of their rows, whose caches begin a forward.
  void Begin(const Rows& rows);
  void Add(const Sequence& sequence);

  // Whether a request of the step keeps features: if not, nothing below is called.
  bool in_use() const { return in_use_; }

  // Before rows are advanced. REQUIRES: pairs of whole rows are this layer's.
  // last: of requests that keep nothing only the predicting rows are active.
  void Gather(std::int64_t layer, bool last);

  // What to advance: the active rows of one sequence after the other.
  float* hidden() { return hidden_.data(); }
  const std::int32_t* positions() const { return positions_.data(); }
  // Where the layer's outputs go for the rows from `first` on; nowhere unless in use.
  transformer::SublayerOutputs Outputs(std::int64_t first);

  // Once they have been.
  void Scatter(std::int64_t layer);

 private:
  void Choose(std::int64_t layer, bool last, Sequence& sequence);
  void ReplaceKeys(std::int64_t layer);
  void Reuse(const Sequence& sequence, const ResponseCache::Layer& kept);

  transformer::Transformer& transformer_;
  Rows rows_;
  bool in_use_ = false;
  std::vector<Sequence> sequences_;
  std::vector<std::int64_t> active_;  // rows of the batch
  std::vector<std::int32_t> positions_;
  std::vector<transformer::RopeRun> rotations_;  // of the active rows in between
  kernels::AlignedBuffer<float> hidden_;         // (active, hidden)
  kernels::AlignedBuffer<float> outputs_;        // (active, hidden) of attention, then of FFN
  kernels::AlignedBuffer<float> keys_;           // (active in between, 2 * kv_width)
};

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_FEATURE_BATCH_H_
