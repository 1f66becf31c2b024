// SPDX-License-Identifier: Apache-2.0
//
// The key under which the cache manager finds an entry again: SHA-256 over everything that a
// prompt's kept pairs are a function of, and over whose they are. Two requests with the same key
// can use each other's entry; whoever adds something that changes an entry adds it here. Attention
// is bidirectional, so the number of masks belongs to it, and so does what of a response is decided
// already. The encoding is in docs/shm_format.md.
// Pure.
#ifndef MASKKV_CORE_ARENA_CACHE_KEY_H_
#define MASKKV_CORE_ARENA_CACHE_KEY_H_

#include <cstdint>
#include <span>
#include <string_view>

#include "core/arena/handle.h"
#include "core/engine/eviction_plan.h"
#include "kernels/base/dtype.h"

namespace maskkv::arena {

// What decides which pairs are kept, as the engine was told, not as the caller asked: the numbers
// of a plan, not its generation, so that a new generation with the same numbers still finds its
// entries. The fields of engine::EvictionPlan; what it says is not used in a case does not enter.
struct CacheKeyPolicy {
  engine::Selection selection = engine::Selection::kMaskKv;
  engine::Voters voters = engine::Voters::kMasks;
  engine::LayerRule layer_rule = engine::LayerRule::kOffline;
  engine::HeadRule head_rule = engine::HeadRule::kPreference;
  std::int64_t budget = 0;
  double coverage = 0;
  std::int64_t max_budget = 0;
  double alpha = 0;
  double beta = 0;
  std::uint64_t random_seed = 0;
  std::span<const double> importance;     // (layers), or empty
  std::span<const double> layer_weights;  // (layers), or empty
  std::span<const double> head_rates;     // (layers * kv_heads), or empty
};

struct CacheKeyFields {
  std::string_view tenant;  // of the authenticated identity
  Digest model_fingerprint{};
  std::span<const std::int32_t> tokens;  // of the prompt, before the masks
  std::int64_t document_tokens = 0;      // of which the first are the document
  std::int64_t masks = 0;                // positions of the answer
  // (masks) ids of a response that was given or is under way, the mask id where nothing is decided;
  // empty: all masks.
  std::span<const std::int32_t> response;
  std::span<const std::int32_t> suffix;  // of the prompt, after the answer
  // The entry whose copy of the document was voted over; 0: none, every row was computed.
  std::uint64_t copy_epoch = 0;
  std::uint64_t copy_entry_id = 0;
  std::string_view rope_scaling;  // "" for none; the rest of RoPE is under the fingerprint
  kernels::DType compute = kernels::DType::kF32;  // of the forward
  kernels::DType dtype = kernels::DType::kF32;    // of the entry
  CacheKeyPolicy policy;
};

// REQUIRES: 0 <= document_tokens <= tokens.size(); no number is NaN.
Digest CacheKey(const CacheKeyFields& fields);

}  // namespace maskkv::arena

#endif  // MASKKV_CORE_ARENA_CACHE_KEY_H_
