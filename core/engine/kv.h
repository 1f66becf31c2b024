// SPDX-License-Identifier: Apache-2.0
//
// How the engines see the compressed prompt cache: prefill writes through a KvSink, decode reads
// through a KvView, and neither knows what memory is behind it (the heap of this process, a shared
// mapping, a device). One entry is the cache of one prompt: for each layer and KV head a list of
// kept pairs, ascending by position, K after RoPE and V, each (pairs, head_dim) contiguous; an int8
// entry has a scale for each key and each value.
//
// Invariants of a finished entry: positions strictly ascend within a head; every layer was
// allocated exactly once, in order; it never changes afterwards.
#ifndef MASKKV_CORE_ENGINE_KV_H_
#define MASKKV_CORE_ENGINE_KV_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/attention/attention.h"
#include "kernels/base/cached_row.h"
#include "kernels/base/dtype.h"

namespace maskkv::engine {

// Where an entry's bytes are. The CPU engine refuses any other kind than kHost.
enum class MemoryKind : std::uint8_t { kHost };

struct EntryShape {
  std::int64_t layers = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  kernels::DType dtype = kernels::DType::kF32;
  double rope_scale = 1;  // the keys were rotated with rope_theta times this

  bool operator==(const EntryShape&) const = default;

  bool HasScales() const { return dtype == kernels::DType::kInt8; }

  // Bytes of one pair of one head: K and V with their scales.
  std::int64_t KvBytes() const { return 2 * kernels::CachedRowBytes(dtype, head_dim); }
  // The same with the position.
  std::int64_t PairBytes() const {
    return KvBytes() + static_cast<std::int64_t>(sizeof(std::int32_t));
  }
};

// Space for one head's kept pairs, to be filled by the writer before the next layer is allocated.
struct HeadExtent {
  std::byte* keys = nullptr;          // (pairs, head_dim) of the entry's dtype
  std::byte* values = nullptr;        // (pairs, head_dim) of the entry's dtype
  std::int32_t* positions = nullptr;  // (pairs), ascending
  std::int64_t pairs = 0;
  // (pairs) of an int8 entry: what QuantiseCachedRow (kernels/base/cached_row.h) returned for each
  // key and value; null for other types.
  float* key_scales = nullptr;
  float* value_scales = nullptr;
};

// Receives one entry. Used by one thread; the extents may be filled by several.
class KvSink {
 public:
  virtual ~KvSink() = default;

  virtual MemoryKind memory() const = 0;

  // Starts the entry. max_pairs bounds the pairs over all layers and heads.
  // Errors: RESOURCE_EXHAUSTED (no room), FAILED_PRECONDITION (already begun).
  virtual absl::Status Begin(const EntryShape& shape, std::int64_t max_pairs) = 0;

  // Gives the space of one layer's heads. pairs_per_head has kv_heads entries, zeros allowed.
  // Layers come in ascending order, each once. The extents stay valid until Finish.
  virtual absl::StatusOr<std::span<const HeadExtent>> AllocateLayer(
      std::int64_t layer, std::span<const std::int64_t> pairs_per_head) = 0;

  // Seals the entry: every layer has been allocated and filled.
  virtual absl::Status Finish() = 0;
};

// A finished entry. Immutable, so it may be read from any thread while it lives.
class KvView {
 public:
  virtual ~KvView() = default;

  virtual MemoryKind memory() const = 0;
  virtual const EntryShape& shape() const = 0;

  // kv_heads entries. REQUIRES: 0 <= layer < shape().layers.
  virtual std::span<const kernels::CachedHead> Layer(std::int64_t layer) const = 0;

  // Positions of a head's pairs, ascending. REQUIRES: indices within the shape.
  virtual std::span<const std::int32_t> Positions(std::int64_t layer, std::int64_t head) const = 0;

  // Bytes of payload: keys, values, their scales, positions.
  virtual std::int64_t bytes() const = 0;
};

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_KV_H_
