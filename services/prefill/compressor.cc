// SPDX-License-Identifier: Apache-2.0
#include "services/prefill/compressor.h"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>

#include "core/arena/cache_key.h"
#include "core/arena/entry_writer.h"
#include "core/arena/layout.h"
#include "core/base/error.h"
#include "core/base/scoped_timer.h"
#include "core/base/status_macros.h"
#include "core/engine/prompt.h"
#include "core/engine/tile_rows.h"
#include "core/model/rope_scaling.h"
#include "services/common/memory.h"

namespace maskkv::prefill {
namespace {

engine::EntryShape ShapeOf(const services::ModelRuntime& model, const Job& job) {
  const model::ModelConfig& config = model.config();
  return {config.layers, config.kv_heads, config.head_dim, job.keep.kv_dtype, job.rope_scale};
}

arena::Digest KeyOf(const services::ModelRuntime& model, const std::string& tenant,
                    const Job& job) {
  const engine::EvictionPlan& plan = job.keep.plan;
  const std::string rope_scaling = model::RopeScaleText(job.rope_scale);
  return arena::CacheKey({.tenant = tenant,
                          .model_fingerprint = model.fingerprint_digest(),
                          .tokens = job.prompt.ids,
                          .document_tokens = job.prompt.document_tokens,
                          .masks = job.masks,
                          .response = job.response,
                          .suffix = job.prompt.suffix,
                          .copy_epoch = job.document ? job.document->metadata().epoch : 0,
                          .copy_entry_id = job.document ? job.document->metadata().entry_id : 0,
                          .rope_scaling = rope_scaling,
                          .compute = model.dtype(),
                          .dtype = job.keep.kv_dtype,
                          .policy = {.selection = plan.selection,
                                     .voters = plan.voters,
                                     .layer_rule = plan.layer_rule,
                                     .head_rule = plan.head_rule,
                                     .budget = job.keep.budget(),
                                     .coverage = plan.coverage,
                                     .max_budget = plan.max_budget,
                                     .alpha = plan.alpha,
                                     .beta = plan.beta,
                                     .random_seed = plan.random_seed,
                                     .importance = plan.importance,
                                     .layer_weights = plan.layer_weights,
                                     .head_rates = plan.head_rates}});
}

arena::EntryMetadata MetadataOf(const services::ModelRuntime& model, const Job& job,
                                const arena::Handle& handle) {
  const std::span<const std::int32_t> ids = job.prompt.ids;
  return {.epoch = handle.epoch,
          .entry_id = handle.entry_id,
          .model_fingerprint = model.fingerprint_digest(),
          .prompt_digest = arena::TokenDigest(ids),
          .document_digest =
              arena::TokenDigest(ids.first(static_cast<std::size_t>(job.prompt.document_tokens))),
          .suffix_digest = arena::TokenDigest(job.prompt.suffix),
          .prompt_tokens = static_cast<std::int64_t>(ids.size()),
          .document_tokens = job.prompt.document_tokens,
          .masks = job.masks,
          .suffix_tokens = std::ssize(job.prompt.suffix),
          .plan_generation = job.keep.plan_generation,
          .budget = job.keep.budget(),
          .kept_mass = 1};
}

std::uint64_t WholePages(std::uint64_t bytes) {
  return (bytes + arena::kEntryPage - 1) / arena::kEntryPage * arena::kEntryPage;
}

// Ends the entry and reads it through the eyes of a reader, who will check the same. The facts'
// bytes are those that were used.
absl::StatusOr<EntryFacts> Complete(arena::EntryWriter& writer,
                                    const arena::EntryMetadata& metadata,
                                    std::span<const std::byte> memory, double kept_mass) {
  // Sums of rounded scores may pass the prompt's by an ulp.
  MASKKV_ASSIGN_OR_RETURN(const std::uint64_t used,
                          writer.Complete(std::clamp(kept_mass, 0.0, 1.0)));
  MASKKV_ASSIGN_OR_RETURN(
      const std::shared_ptr<const arena::MappedEntry> view,
      arena::MappedEntry::Over(memory.first(used), {.epoch = metadata.epoch,
                                                    .entry_id = metadata.entry_id,
                                                    .bytes = used,
                                                    .model_fingerprint = metadata.model_fingerprint,
                                                    .verify_checksums = false}));
  return FactsOf(*view, used);
}

}  // namespace

std::uint64_t WorkingBytes(const model::ModelConfig& config, const Job& job) {
  const std::int64_t rows = job.prompt.tokens() + job.masks;
  const std::int64_t kv_layers = job.keep.plan.HoldsAllLayers() ? config.layers : 1;
  const std::int64_t floats_a_row = config.hidden +
                                    2 * config.kv_heads * config.head_dim * kv_layers +
                                    config.kv_heads * kv_layers;
  std::int64_t staged = 0;  // pairs, at most f32
  if (job.keep.plan.StagesPairs()) {
    staged = job.keep.plan.MaxPairsAHead(job.prompt.tokens()) * config.layers * config.kv_heads;
  }
  return static_cast<std::uint64_t>(rows * floats_a_row + staged * 2 * config.head_dim) *
         sizeof(float);
}

Compressor::Compressor(std::shared_ptr<const services::ModelRuntime> model,
                       std::shared_ptr<services::CacheClient> cache,
                       std::shared_ptr<schedule::Turns> turns, const services::TurnMetrics& metrics)
    : model_(std::move(model)),
      cache_(std::move(cache)),
      turns_(std::move(turns)),
      metrics_(metrics),
      pool_(model_->pool()),
      transformer_(model_->weights(), pool_, model_->max_positions()),
      prefiller_(transformer_) {}

absl::StatusOr<engine::PrefillResult> Compressor::RunInto(
    engine::KvSink& sink, const Job& job, const std::function<absl::Status()>& alive,
    const ScoreObserver& on_scores) {
  const kernels::WorkerPool::Seat seat(pool_);
  const model::ModelConfig& config = model_->config();
  MASKKV_RETURN_IF_ERROR(services::CheckFits(config, job.prompt.tokens() + job.masks,
                                             job.keep.plan.HoldsAllLayers() ? config.layers : 1));
  std::vector<std::int32_t> response = job.response;
  response.resize(static_cast<std::size_t>(job.masks), config.mask_id);
  const std::vector<engine::Row> rows =
      engine::PromptThenResponse(job.prompt.ids, response, config, job.prompt.suffix);
  std::optional<engine::DocumentCopy> document;
  if (job.document != nullptr) {
    MASKKV_ASSIGN_OR_RETURN(document, engine::DocumentCopy::Of(*job.document, job.document_tokens));
  }
  std::function<absl::Status()> give_way;
  if (turns_ != nullptr) {
    give_way = [&] {
      metrics_.Observe(turns_->GiveWay());
      return alive();
    };
  }
  const schedule::ScopedTurn turn(turns_.get(), schedule::Side::kTile);
  metrics_.Observe(turn.wait());
  return prefiller_.Run({{.rows = rows,
                          .rope_scale = job.rope_scale,
                          .document = document ? &*document : nullptr,
                          .after_layer = [&](std::int64_t, std::int64_t) { return alive(); },
                          .tile_rows = turns_ == nullptr ? transformer::kRowBlock
                                                         : engine::TileRows(std::ssize(rows)),
                          .between_tiles = give_way,
                          .on_scores = on_scores},
                         job.keep.plan,
                         job.keep.kv_dtype},
                        sink);
}

absl::StatusOr<Compressed> Compressor::Run(const services::Call& call, const Job& job) {
  MASKKV_RETURN_IF_ERROR(call.Alive());
  const model::ModelConfig& config = model_->config();
  const std::int64_t max_pairs =
      job.keep.plan.MaxPairsAHead(job.prompt.tokens()) * config.kv_heads * config.layers;
  MASKKV_ASSIGN_OR_RETURN(const std::uint64_t max_bytes,
                          arena::MaxEntryBytes(ShapeOf(*model_, job), max_pairs));
  const arena::Digest key = KeyOf(*model_, call.tenant(), job);
  for (bool ignore_cached = job.ignore_cached;; ignore_cached = true) {
    double reserve_seconds = 0;
    auto reserved = [&] {
      const ScopedTimer timer(reserve_seconds);
      return cache_->Reserve(call, key, max_bytes, ignore_cached);
    }();
    MASKKV_RETURN_IF_ERROR(reserved.status());
    if (auto* cached = std::get_if<services::CachedHandle>(&*reserved)) {
      absl::StatusOr<Compressed> found = Reuse(call, *cached);
      // Evicted between the two calls, or damaged: as if it had not been there.
      if (!found.ok() && !absl::IsUnavailable(found.status()) && call.Alive().ok()) continue;
      return found;
    }
    absl::StatusOr<Compressed> written =
        Write(call, job, *std::get<std::unique_ptr<services::WritableEntry>>(*reserved));
    if (written.ok()) written->publish_seconds += reserve_seconds;
    return written;
  }
}

absl::StatusOr<Compressed> Compressor::Reuse(const services::Call& call,
                                             const services::CachedHandle& cached) {
  MASKKV_ASSIGN_OR_RETURN(const std::shared_ptr<const arena::MappedEntry> entry,
                          cache_->Map(call, cached.handle, model_->fingerprint_digest()));
  Compressed compressed;
  compressed.handle = cached.handle;
  compressed.facts = FactsOf(*entry, cached.bytes);
  return compressed;
}

absl::StatusOr<Compressed> Compressor::Write(const services::Call& call, const Job& job,
                                             services::WritableEntry& entry) {
  const arena::EntryMetadata metadata = MetadataOf(*model_, job, entry.handle());
  arena::EntryWriter writer(entry.memory(), metadata);
  Compressed compressed;
  MASKKV_ASSIGN_OR_RETURN(compressed.forward, RunInto(writer, job, [&] { return call.Alive(); }));
  {
    const ScopedTimer timer(compressed.publish_seconds);
    MASKKV_ASSIGN_OR_RETURN(compressed.facts, Complete(writer, metadata, entry.memory(),
                                                       compressed.forward->kept_mass()));
    MASKKV_RETURN_IF_ERROR(call.Alive());
    MASKKV_ASSIGN_OR_RETURN(compressed.handle, entry.Seal(compressed.facts.bytes));
  }
  compressed.facts.bytes = WholePages(compressed.facts.bytes);
  return compressed;
}

absl::Status Compressor::WarmUp() {
  const model::ModelConfig& config = model_->config();
  Job job;
  job.prompt.ids = {config.mask_id == 0 ? 1 : 0};
  job.masks = 1;
  job.keep.plan.selection = engine::Selection::kFull;
  if (model_->max_positions() < 2) job.prompt.ids.clear();
  engine::HeapKvEntry entry;
  return RunInto(entry, job, [] { return absl::OkStatus(); }).status();
}

}  // namespace maskkv::prefill
