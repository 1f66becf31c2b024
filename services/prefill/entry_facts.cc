// SPDX-License-Identifier: Apache-2.0
#include "services/prefill/entry_facts.h"

#include <numeric>

#include "core/base/sha256.h"
#include "maskkv/v1/prefill.pb.h"
#include "services/common/dtype_proto.h"
#include "services/common/handle_proto.h"

namespace maskkv::prefill {

EntryFacts FactsOf(const arena::MappedEntry& entry, std::uint64_t bytes) {
  const engine::EntryShape& shape = entry.shape();
  EntryFacts facts;
  facts.metadata = entry.metadata();
  facts.layers = shape.layers;
  facts.kv_heads = shape.kv_heads;
  facts.rope_scale = shape.rope_scale;
  for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
    for (const kernels::CachedHead& head : entry.Layer(layer)) facts.per_head.push_back(head.pairs);
  }
  facts.bytes = bytes;
  facts.kv_dtype = shape.dtype;
  facts.full_bytes = static_cast<std::uint64_t>(facts.prompt_tokens() * shape.layers *
                                                shape.kv_heads * shape.KvBytes());
  facts.digest = entry.ContentDigest();
  return facts;
}

void FillKept(std::span<const std::int64_t> per_head, std::int64_t kv_heads,
              std::int64_t prompt_tokens, double mass, v1::KeptPairs& kept) {
  kept.set_pairs(std::accumulate(per_head.begin(), per_head.end(), std::int64_t{0}));
  kept.set_considered(prompt_tokens * static_cast<std::int64_t>(per_head.size()));
  kept.mutable_per_head()->Assign(per_head.begin(), per_head.end());
  for (std::size_t i = 0; i < per_head.size(); i += static_cast<std::size_t>(kv_heads)) {
    const auto layer = per_head.subspan(i, static_cast<std::size_t>(kv_heads));
    kept.add_per_layer(std::accumulate(layer.begin(), layer.end(), std::int64_t{0}));
  }
  kept.set_mass(mass);
}

void FillAnswer(const EntryFacts& facts, const arena::Handle& handle, bool cached,
                v1::PrefillResponse& answer) {
  services::ToProto(handle, *answer.mutable_handle());
  answer.set_prompt_tokens(facts.prompt_tokens());
  answer.set_masks(facts.metadata.masks);
  answer.set_rope_scale(facts.rope_scale);
  FillKept(facts.per_head, facts.kv_heads, facts.prompt_tokens(), facts.metadata.kept_mass,
           *answer.mutable_kept());
  answer.set_entry_bytes(facts.bytes);
  answer.set_full_bytes(facts.full_bytes);
  answer.set_kv_dtype(services::ToProto(facts.kv_dtype));
  answer.set_cached(cached);
  answer.set_budget(facts.metadata.budget);
  answer.set_document_tokens(facts.metadata.document_tokens);
  v1::Provenance& provenance = *answer.mutable_provenance();
  provenance.set_plan_generation(facts.metadata.plan_generation);
  provenance.set_entry_digest(Hex(facts.digest));
}

}  // namespace maskkv::prefill
