// SPDX-License-Identifier: Apache-2.0
//
// What an answer says of an entry, read from the entry itself: the same for one that was just
// written and for one that was there already. Pure.
#ifndef MASKKV_SERVICES_PREFILL_ENTRY_FACTS_H_
#define MASKKV_SERVICES_PREFILL_ENTRY_FACTS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "core/arena/handle.h"
#include "core/arena/mapped_entry.h"

namespace maskkv::v1 {
class KeptPairs;
class PrefillResponse;
}  // namespace maskkv::v1

namespace maskkv::prefill {

struct EntryFacts {
  arena::EntryMetadata metadata;
  std::int64_t layers = 0;
  std::int64_t kv_heads = 0;
  double rope_scale = 1;
  std::vector<std::int64_t> per_head;  // (layers * kv_heads) pairs, layer by layer
  std::uint64_t bytes = 0;             // in shared memory
  std::uint64_t full_bytes = 0;        // K and V of the whole prompt, stored alike
  kernels::DType kv_dtype = kernels::DType::kF32;
  arena::Digest digest{};  // of the entry's content

  // Before and after the answer.
  std::int64_t prompt_tokens() const { return metadata.prompt_tokens + metadata.suffix_tokens; }
};

// Reads the whole entry, for its digest.
EntryFacts FactsOf(const arena::MappedEntry& entry, std::uint64_t bytes);

// per_head: (layers * kv_heads) pairs.
void FillKept(std::span<const std::int64_t> per_head, std::int64_t kv_heads,
              std::int64_t prompt_tokens, double mass, v1::KeptPairs& kept);

// Everything of the answer but its timings and what the model says of itself.
void FillAnswer(const EntryFacts& facts, const arena::Handle& handle, bool cached,
                v1::PrefillResponse& answer);

}  // namespace maskkv::prefill

#endif  // MASKKV_SERVICES_PREFILL_ENTRY_FACTS_H_
