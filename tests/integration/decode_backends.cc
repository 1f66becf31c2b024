// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/decode_backends.h"

#include <grpcpp/server_context.h>

#include <limits>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "core/arena/entry_writer.h"
#include "core/base/error.h"
#include "core/base/sha256.h"
#include "core/base/status_macros.h"
#include "core/engine/prefill.h"
#include "kernels/base/aligned_buffer.h"
#include "maskkv/v1/prefill.grpc.pb.h"
#include "services/common/dtype_proto.h"
#include "services/common/status.h"

namespace maskkv::testing {
namespace {

constexpr std::uint64_t kEpoch = 7;

struct StoredEntry {
  kernels::AlignedBuffer<std::byte> memory;
  std::size_t bytes = 0;
};

}  // namespace

engine::EvictionPlan PlanOf(const v1::KeepPolicy& keep) {
  engine::EvictionPlan plan;
  plan.layer_rule = engine::LayerRule::kUniform;
  plan.budget = keep.budget() == 0 ? 8 : keep.budget();
  plan.random_seed = keep.random_seed();
  if (keep.selection() == v1::SELECTION_FULL) plan.selection = engine::Selection::kFull;
  if (keep.selection() == v1::SELECTION_RANDOM) plan.selection = engine::Selection::kRandom;
  return plan;
}

struct DecodeBackends::Impl final : v1::PrefillService::Service {
  explicit Impl(std::shared_ptr<const services::ModelRuntime> the_model)
      : model(std::move(the_model)),
        pool(1),
        transformer(model->weights(), pool, model->max_positions()) {}

  grpc::Status Prefill(grpc::ServerContext* context, const v1::PrefillRequest* request,
                       v1::PrefillResponse* response) override {
    const bool passes = free_passes.fetch_sub(1) > 0;
    while (blocked && !passes) {
      if (context->IsCancelled()) return grpc::Status::CANCELLED;
      std::this_thread::yield();
    }
    const std::lock_guard lock(mu);
    request_ids.push_back(request->request_id());
    if (!failure.ok() && before_failure-- == 0) {
      return services::ToGrpc(std::exchange(failure, absl::OkStatus()));
    }
    return services::ToGrpc(Run(*request, *response));
  }

  absl::Status Run(const v1::PrefillRequest& request, v1::PrefillResponse& response) {
    MASKKV_ASSIGN_OR_RETURN(const services::PromptIds prompt,
                            model->Tokenize(request.prompt(), services::MaskedPrompt::kAllowed));
    const model::ModelConfig& config = model->config();
    const auto tokens = static_cast<std::int64_t>(prompt.ids.size());
    arena::EntryMetadata metadata;
    metadata.epoch = kEpoch;
    metadata.entry_id = static_cast<std::uint64_t>(entries.size()) + 1;
    metadata.model_fingerprint = model->fingerprint_digest();
    metadata.prompt_digest = arena::TokenDigest(prompt.ids);
    metadata.document_digest = arena::TokenDigest(
        std::span(prompt.ids).first(static_cast<std::size_t>(prompt.document_tokens)));
    metadata.prompt_tokens = tokens;
    metadata.document_tokens = prompt.document_tokens;
    metadata.masks = request.masks();
    metadata.suffix_tokens = std::ssize(prompt.suffix);
    metadata.suffix_digest = arena::TokenDigest(prompt.suffix);

    StoredEntry& stored = entries[metadata.entry_id];
    const kernels::DType kv_dtype = services::FromProto(request.keep().kv_dtype(), model->dtype());
    const engine::EntryShape shape{config.layers, config.kv_heads, config.head_dim, kv_dtype,
                                   rope_scale};
    MASKKV_ASSIGN_OR_RETURN(
        const std::uint64_t bytes,
        arena::MaxEntryBytes(shape, prompt.tokens() * config.layers * config.kv_heads));
    stored.memory.Resize(static_cast<std::int64_t>(bytes));
    arena::EntryWriter writer({stored.memory.data(), bytes}, metadata);
    std::vector<std::int32_t> answer(request.response().begin(), request.response().end());
    if (answer.empty()) answer.resize(static_cast<std::size_t>(request.masks()), config.mask_id);
    const std::vector<engine::Row> rows =
        engine::PromptThenResponse(prompt.ids, answer, config, prompt.suffix);
    engine::PrefillRequest prefill;
    prefill.rows = rows;
    prefill.rope_scale = rope_scale;
    prefill.plan = PlanOf(request.keep());
    prefill.kv_dtype = kv_dtype;
    MASKKV_ASSIGN_OR_RETURN(const engine::PrefillResult result,
                            engine::Prefiller(transformer).Run(prefill, writer));
    MASKKV_ASSIGN_OR_RETURN(stored.bytes, writer.Complete(result.kept_mass()));

    v1::Handle& handle = *response.mutable_handle();
    handle.set_owner(std::string(1, 'c'));
    handle.set_epoch(kEpoch);
    handle.set_entry_id(metadata.entry_id);
    handle.set_version(1);
    response.set_prompt_tokens(prompt.tokens());
    response.set_masks(request.masks());
    response.mutable_kept()->set_pairs(result.pairs());
    response.set_entry_bytes(stored.bytes);
    response.mutable_provenance()->set_plan_generation(3);
    response.mutable_provenance()->set_entry_digest("digest");
    return absl::OkStatus();
  }

  absl::StatusOr<std::shared_ptr<const arena::MappedEntry>> Map(const arena::Handle& handle) {
    const std::lock_guard lock(mu);
    const auto found = entries.find(handle.entry_id);
    if (found == entries.end() || evictions > 0) {
      evictions = std::max(0, evictions - 1);
      return MakeError(absl::StatusCode::kNotFound, "HANDLE_UNKNOWN", "handle: no such entry");
    }
    if (handle.epoch != kEpoch) {
      return MakeError(absl::StatusCode::kAborted, "EPOCH_MOVED", "handle: of another life");
    }
    arena::EntryExpectation expectation;
    expectation.epoch = handle.epoch;
    expectation.entry_id = handle.entry_id;
    expectation.verify_checksums = false;
    const StoredEntry& stored = found->second;
    MASKKV_ASSIGN_OR_RETURN(
        std::shared_ptr<const arena::MappedEntry> entry,
        arena::MappedEntry::Over({stored.memory.data(), stored.bytes}, expectation));
    if (std::exchange(poison, false)) Poison(*entry);
    ++leased;
    return std::shared_ptr<const arena::MappedEntry>(
        entry.get(), [this, entry](const arena::MappedEntry*) mutable {
          entry.reset();
          --leased;
        });
  }

  static void Poison(const arena::MappedEntry& entry) {
    const kernels::CachedHead& head = entry.Layer(0)[0];
    auto* values = const_cast<float*>(static_cast<const float*>(head.v));
    values[0] = std::numeric_limits<float>::quiet_NaN();
  }

  const std::shared_ptr<const services::ModelRuntime> model;
  std::atomic<std::int64_t> leased{0};
  std::atomic<bool> blocked{false};
  std::atomic<int> free_passes{0};

  std::mutex mu;
  kernels::WorkerPool pool;  // guarded by mu, as all that follows
  transformer::Transformer transformer;
  std::map<std::uint64_t, StoredEntry> entries;
  std::vector<std::string> request_ids;
  absl::Status failure;
  int before_failure = 0;
  int evictions = 0;
  bool poison = false;
  double rope_scale = 1;
};

DecodeBackends::DecodeBackends(std::shared_ptr<const services::ModelRuntime> model)
    : impl_(std::make_unique<Impl>(std::move(model))) {}
DecodeBackends::~DecodeBackends() = default;

grpc::Service& DecodeBackends::prefill() { return *impl_; }

decode::EntryMapper DecodeBackends::mapper() {
  return [this](const services::Call&, const arena::Handle& handle) { return impl_->Map(handle); };
}

std::int64_t DecodeBackends::leased() const { return impl_->leased; }

std::int64_t DecodeBackends::prefills() const {
  return static_cast<std::int64_t>(request_ids().size());
}

std::vector<std::string> DecodeBackends::request_ids() const {
  const std::lock_guard lock(impl_->mu);
  return impl_->request_ids;
}

void DecodeBackends::EvictBeforeMapping(int times) {
  const std::lock_guard lock(impl_->mu);
  impl_->evictions = times;
}

void DecodeBackends::FailPrefill(absl::Status status, int after) {
  const std::lock_guard lock(impl_->mu);
  impl_->before_failure = after;
  impl_->failure = std::move(status);
}

void DecodeBackends::PoisonEntry() {
  const std::lock_guard lock(impl_->mu);
  impl_->poison = true;
}

void DecodeBackends::SetRopeScale(double scale) {
  const std::lock_guard lock(impl_->mu);
  impl_->rope_scale = scale;
}

void DecodeBackends::BlockPrefills(bool block, int after) {
  impl_->free_passes = after;
  impl_->blocked = block;
}

}  // namespace maskkv::testing
