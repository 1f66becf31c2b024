// SPDX-License-Identifier: Apache-2.0
//
// Prefill under LayerRule::kPool: which pairs are kept is known after the last layer, but what the
// layers so far have beaten cannot come back (core/policy/pair_pool.h). So each layer's candidates
// wait here, packed as the entry will hold them, and are dropped as better ones come: never more
// pairs than the entry, besides the one layer's full K and V that the forward holds.
//
// Owns the staged pairs. Not thread safe.
#ifndef MASKKV_CORE_ENGINE_POOL_STAGE_H_
#define MASKKV_CORE_ENGINE_POOL_STAGE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "core/engine/keep.h"
#include "core/engine/kv.h"
#include "core/policy/pair_pool.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::engine {

class PoolStage {
 public:
  // max_pairs >= 0: the entry's pairs over all layers and heads.
  PoolStage(const EntryShape& shape, std::int64_t max_pairs);

  // The next layer. scores: over all keys, the first prompt_tokens of them the prompt's. kv: its
  // full K and V, (rows, 2 * kv_heads * head_dim) f32.
  // Errors: of CheckLayerScores; INVALID_ARGUMENT for scores that are no votes.
  absl::Status AddLayer(kernels::WorkerPool& workers, const LayerScores& scores,
                        std::int64_t prompt_tokens, const float* kv);

  // What a layer keeps now. REQUIRES: 0 <= layer < layers added, before it is written.
  KeptLayer Kept(std::int64_t layer) const;

  // Copies the next layer into the sink and frees it. positions: of the forward's rows.
  // REQUIRES: all layers were added. Errors: of the sink.
  absl::Status WriteLayer(std::span<const std::int32_t> positions, KvSink& sink);

  // K and V that wait.
  std::int64_t bytes() const;

 private:
  struct Head {
    std::vector<std::int32_t> rows;  // ascending
    std::vector<float> mask_scores;  // (rows)
    std::vector<std::byte> keys;     // (rows, head_dim) of the entry's dtype
    std::vector<std::byte> values;   // likewise
    std::vector<float> key_scales;   // (rows) of an int8 entry, else empty
    std::vector<float> value_scales;
    double preference = 0;
    double prompt_mass = 0;
  };
  using Layer = std::vector<Head>;

  std::size_t RowBytes() const;
  // Drops the rows that are not in `kept`, which is a part of them.
  void Shrink(Head& head, std::span<const std::int32_t> kept) const;

  const EntryShape shape_;
  policy::PairPool pool_;
  std::vector<Layer> layers_;  // written ones are empty
  std::int64_t written_ = 0;
};

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_POOL_STAGE_H_
