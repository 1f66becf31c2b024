// SPDX-License-Identifier: Apache-2.0
//
// A view of an entry that shows only the pairs of the first n prompt positions: what a document's
// entry is to another question over the same document. Positions ascend within a head, so each head
// shows a prefix of its pairs and nothing is copied.
//
// Ownership: keeps the base alive. Immutable, so any thread may read it.
#ifndef MASKKV_CORE_ENGINE_PREFIX_VIEW_H_
#define MASKKV_CORE_ENGINE_PREFIX_VIEW_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/engine/kv.h"

namespace maskkv::engine {

class PrefixView final : public KvView {
 public:
  // positions: pairs at positions 0 to positions - 1 are shown; 0 shows none, a number beyond the
  // prompt shows all. REQUIRES: base is not null and in memory that this process can read.
  PrefixView(std::shared_ptr<const KvView> base, std::int64_t positions);

  MemoryKind memory() const override { return base_->memory(); }
  const EntryShape& shape() const override { return base_->shape(); }
  std::span<const kernels::CachedHead> Layer(std::int64_t layer) const override;
  std::span<const std::int32_t> Positions(std::int64_t layer, std::int64_t head) const override;
  // Of the pairs that are shown.
  std::int64_t bytes() const override { return pairs_ * shape().PairBytes(); }

  std::int64_t pairs() const { return pairs_; }

 private:
  std::shared_ptr<const KvView> base_;
  std::vector<kernels::CachedHead> heads_;  // (layers * kv_heads)
  std::int64_t pairs_ = 0;
};

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_PREFIX_VIEW_H_
