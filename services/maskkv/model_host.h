// SPDX-License-Identifier: Apache-2.0
//
// What every subcommand needs of a model: the loaded checkpoint (services/common/model_runtime.h),
// a worker pool, a transformer, and prompts that flags name turned into ids. Owns all of it. Load,
// use and destroy it on one thread, which is the pool's worker 0 meanwhile.
#ifndef MASKKV_SERVICES_MASKKV_MODEL_HOST_H_
#define MASKKV_SERVICES_MASKKV_MODEL_HOST_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/transformer/transformer.h"
#include "services/common/model_runtime.h"
#include "services/maskkv/common_flags.h"

namespace maskkv::cli {

class ModelHost {
 public:
  // Loads and packs the checkpoint.
  static absl::StatusOr<std::unique_ptr<ModelHost>> Load(const ModelFlags& flags);

  // Makes the transformer for positions below max_positions, which the prompts decide. Call it
  // before transformer(); again only to grow. all_layers: a prefill will hold the K and V of every
  // layer at once. Errors: RESOURCE_EXHAUSTED if so many positions cannot fit.
  absl::Status Prepare(std::int64_t max_positions, bool all_layers);
  transformer::Transformer& transformer() { return *transformer_; }
  const services::ModelRuntime& runtime() const { return *runtime_; }
  const model::ModelConfig& config() const { return runtime_->config(); }
  const model::Checkpoint& checkpoint() const { return runtime_->weights().checkpoint(); }
  const std::string& directory() const { return checkpoint().directory(); }
  kernels::DType compute() const { return runtime_->dtype(); }
  kernels::DType pairs() const { return pairs_; }  // of entries
  double load_seconds() const { return load_seconds_; }
  int threads() const { return pool_->threads(); }

  // Null when the directory has no tokenizer.json: then only token ids can be used.
  const model::Tokenizer* tokenizer() const { return runtime_->tokenizer(); }

  // The chat prompt of one user message. Errors: FAILED_PRECONDITION without a tokenizer.
  absl::StatusOr<std::vector<std::int32_t>> ChatPrompt(std::string_view text) const;

  // The same of a document and a question about it, with how many ids every question shares.
  // Errors: of services::ModelRuntime::Tokenize.
  absl::StatusOr<services::PromptIds> DocumentPrompt(const std::string& document,
                                                     const std::string& question) const;

  // The prompt that flags name: a file's ids, or document and question through the chat template.
  // Errors: NOT_FOUND (file), INVALID_ARGUMENT (not UTF-8, not an array of ids), CANCELLED.
  absl::StatusOr<std::vector<std::int32_t>> Prompt(const PromptFlags& flags) const;

  // The ids that end an answer: the checkpoint's eos, then the tokenizer's end of turn.
  const std::vector<std::int32_t>& StopIds() const { return runtime_->stop_ids(); }

  // Text of ids without special tokens; empty without a tokenizer.
  std::string Text(std::span<const std::int32_t> ids) const;

 private:
  ModelHost() = default;

  double load_seconds_ = 0;
  kernels::DType pairs_ = kernels::DType::kF32;
  std::shared_ptr<const services::ModelRuntime> runtime_;
  std::unique_ptr<kernels::WorkerPool> pool_;
  std::optional<kernels::WorkerPool::Seat> seat_;  // of the thread that loaded
  std::unique_ptr<transformer::Transformer> transformer_;
};

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_MODEL_HOST_H_
