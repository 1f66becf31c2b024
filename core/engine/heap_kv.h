// SPDX-License-Identifier: Apache-2.0
//
// An entry in this process's heap: the sink while it is written, the view once it is finished. What
// the command line uses, and the model of every other plane in tests. Not thread safe while it is
// written, immutable and safe to share afterwards.
#ifndef MASKKV_CORE_ENGINE_HEAP_KV_H_
#define MASKKV_CORE_ENGINE_HEAP_KV_H_

#include <cstdint>
#include <span>
#include <vector>

#include "core/engine/kv.h"
#include "kernels/base/aligned_buffer.h"

namespace maskkv::engine {

class HeapKvEntry final : public KvSink, public KvView {
 public:
  HeapKvEntry() = default;

  MemoryKind memory() const override { return MemoryKind::kHost; }

  // KvSink
  absl::Status Begin(const EntryShape& shape, std::int64_t max_pairs) override;
  absl::StatusOr<std::span<const HeadExtent>> AllocateLayer(
      std::int64_t layer, std::span<const std::int64_t> pairs_per_head) override;
  absl::Status Finish() override;

  // KvView. REQUIRES: Finish returned OK.
  const EntryShape& shape() const override { return shape_; }
  std::span<const kernels::CachedHead> Layer(std::int64_t layer) const override;
  std::span<const std::int32_t> Positions(std::int64_t layer, std::int64_t head) const override;
  std::int64_t bytes() const override { return bytes_; }

  // Aborts if an invariant of kv.h or of the accounting does not hold.
  void CheckInvariants() const;

 private:
  struct LayerStore {
    kernels::AlignedBuffer<std::byte> payload;  // keys, then values, a head after the other
    std::vector<float> scales;                  // of an int8 entry: keys, then values, by head
    std::vector<std::int32_t> positions;        // of all heads
    std::vector<HeadExtent> extents;            // into those above
    std::vector<kernels::CachedHead> heads;     // the same, as the kernels read them
  };

  EntryShape shape_;
  std::int64_t max_pairs_ = 0;
  std::int64_t pairs_ = 0;
  std::int64_t bytes_ = 0;
  bool begun_ = false;
  bool finished_ = false;
  std::vector<LayerStore> layers_;
};

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_HEAP_KV_H_
