// SPDX-License-Identifier: Apache-2.0
//
// Compresses one prompt: finds its entry or reserves room, runs the forward straight into the
// reservation, seals it. Owns the engine's single-threaded parts (workers, transformer scratch), so
// one thread at a time uses it: whoever has the turn (forward_gate.h).
//
// On every way out that is not success the reservation is gone.
#ifndef MASKKV_SERVICES_PREFILL_COMPRESSOR_H_
#define MASKKV_SERVICES_PREFILL_COMPRESSOR_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/schedule/turns.h"
#include "core/transformer/transformer.h"
#include "kernels/parallel/worker_pool.h"
#include "services/common/cache_client.h"
#include "services/common/call.h"
#include "services/common/model_runtime.h"
#include "services/common/turns.h"
#include "services/prefill/entry_facts.h"
#include "services/prefill/keep_resolution.h"

namespace maskkv::prefill {

// One prompt as it is to be compressed.
struct Job {
  services::PromptIds prompt;
  std::int64_t masks = 0;  // positions of the answer
  // (masks) ids of a response that was given or is under way, the mask id where nothing is decided;
  // empty: all masks.
  std::vector<std::int32_t> response;
  ResolvedKeep keep;
  double rope_scale = 1;
  // The entry whose pairs stand for the prompt's first document_tokens rows; null: none.
  std::shared_ptr<const arena::MappedEntry> document;
  std::int64_t document_tokens = 0;
  bool ignore_cached = false;
};

// Bytes that a job needs while it runs, without its entry: hidden states, scores, the K and V that
// are alive at once.
std::uint64_t WorkingBytes(const model::ModelConfig& config, const Job& job);

struct Compressed {
  arena::Handle handle;
  EntryFacts facts;
  // Absent if the entry was there already.
  std::optional<engine::PrefillResult> forward;
  double publish_seconds = 0;
};

class Compressor {
 public:
  // Observes the scores of one layer: (kv_heads, rows).
  using ScoreObserver = std::function<void(std::int64_t layer, std::span<const float> scores)>;

  // turns: the forward computes in its turn and gives way between its tiles; null: it does not.
  Compressor(std::shared_ptr<const services::ModelRuntime> model,
             std::shared_ptr<services::CacheClient> cache,
             std::shared_ptr<schedule::Turns> turns = nullptr,
             const services::TurnMetrics& metrics = {});

  // Deadline and cancellation are looked at after every layer, with turns after every tile.
  // Errors: of the cache (CacheClient::Reserve, Seal, Map) and of the engine; RESOURCE_EXHAUSTED
  // (OUT_OF_MEMORY); DATA_LOSS (NOT_FINITE).
  absl::StatusOr<Compressed> Run(const services::Call& call, const Job& job);

  // The same forward into this process's heap.
  absl::StatusOr<engine::PrefillResult> RunInto(engine::KvSink& sink, const Job& job,
                                                const std::function<absl::Status()>& alive,
                                                const ScoreObserver& on_scores = {});

  // A forward over the shortest prompt: everything that is loaded on first use is there afterwards.
  absl::Status WarmUp();

 private:
  absl::StatusOr<Compressed> Reuse(const services::Call& call,
                                   const services::CachedHandle& cached);
  absl::StatusOr<Compressed> Write(const services::Call& call, const Job& job,
                                   services::WritableEntry& entry);

  const std::shared_ptr<const services::ModelRuntime> model_;
  const std::shared_ptr<services::CacheClient> cache_;
  const std::shared_ptr<schedule::Turns> turns_;
  const services::TurnMetrics metrics_;
  kernels::WorkerPool pool_;
  transformer::Transformer transformer_;
  engine::Prefiller prefiller_;
};

}  // namespace maskkv::prefill

#endif  // MASKKV_SERVICES_PREFILL_COMPRESSOR_H_
