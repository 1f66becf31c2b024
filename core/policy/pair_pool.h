// SPDX-License-Identifier: Apache-2.0
//
// The prompt pairs of highest score over all layers and heads of a model, found while the layers
// run one after the other: one pool in the place of layer and head budgets. A pair that is not
// among the best of the layers seen so far cannot come back, so its K and V may be dropped at once:
// an entry can be cut from one global ranking although no more than the entry and one layer's full
// K and V are ever alive. (Layer budgets from a prompt's own importance need every layer's first.)
//
//   order  by score I (equation 7 of MaskKV, arXiv 2510.09309): descending; ties to the lower
//          layer, then to the lower head, then to the lower position
//   kept   the first `capacity` pairs, or all there are; a head may keep none
//
// Invariants: after layer l the kept pairs are the best of layers 0..l; what a head keeps of a
// layer only shrinks as layers follow. Not thread safe.
#ifndef MASKKV_CORE_POLICY_PAIR_POOL_H_
#define MASKKV_CORE_POLICY_PAIR_POOL_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace maskkv::policy {

class PairPool {
 public:
  // heads: KV heads of every layer, 1 to kMaxUnits. capacity >= 0: pairs kept in all.
  PairPool(std::int64_t heads, std::int64_t capacity);

  // The next layer's scores (heads, keys) f32, finite and >= 0; of each row the first prompt_tokens
  // (0 to keys, the same for every layer) are looked at.
  // Errors: INVALID_ARGUMENT naming the argument, or head and position; the pool is as it was.
  absl::Status AddLayer(std::span<const float> scores, std::int64_t keys,
                        std::int64_t prompt_tokens);

  std::int64_t layers() const { return layers_; }  // seen so far
  std::int64_t pairs() const { return static_cast<std::int64_t>(pairs_.size()); }

  // Positions that a head of a layer keeps now, strictly ascending.
  // REQUIRES: 0 <= layer < layers(), 0 <= head < heads.
  std::vector<std::int32_t> Kept(std::int64_t layer, std::int64_t head) const;

  void CheckInvariants() const;

 private:
  struct Pair {
    float score;
    std::int32_t unit;  // layer * heads + head
    std::int32_t position;
  };
  static bool ComesBefore(const Pair& a, const Pair& b);
  static bool Lies(const Pair& a, const Pair& b);  // by unit, then by position

  // Constant after construction.
  const std::int64_t heads_;
  const std::int64_t capacity_;

  std::int64_t layers_ = 0;
  std::vector<Pair> pairs_;  // in the order of Lies
};

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_PAIR_POOL_H_
