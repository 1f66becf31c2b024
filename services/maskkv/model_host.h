// SPDX-License-Identifier: Apache-2.0
//
// What every subcommand needs of a model: worker pool, packed weights, transformer, tokenizer (when
// the directory has one), and prompts turned into ids. Owns all of it. Not thread safe.
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
#include "core/model/tokenizer.h"
#include "core/transformer/transformer.h"
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
  const model::ModelConfig& config() const { return weights_->config(); }
  const model::Checkpoint& checkpoint() const { return weights_->checkpoint(); }
  const std::string& directory() const { return directory_; }
  kernels::DType compute() const { return weights_->compute(); }
  double load_seconds() const { return load_seconds_; }
  int threads() const { return pool_->threads(); }

  // Null when the directory has no tokenizer.json: then only token ids can be used.
  const model::Tokenizer* tokenizer() const { return tokenizer_ ? &*tokenizer_ : nullptr; }

  // The chat prompt of one user message. Errors: FAILED_PRECONDITION without a tokenizer.
  absl::StatusOr<std::vector<std::int32_t>> ChatPrompt(std::string_view text) const;

  // The prompt that flags name: a file's ids, or document and question through the chat template.
  // Errors: NOT_FOUND (file), INVALID_ARGUMENT (not UTF-8, not an array of ids), CANCELLED.
  absl::StatusOr<std::vector<std::int32_t>> Prompt(const PromptFlags& flags) const;

  // The ids that end an answer: the checkpoint's eos, then the tokenizer's end of turn.
  std::vector<std::int32_t> StopIds() const;

  // Text of ids without special tokens; empty without a tokenizer.
  std::string Text(std::span<const std::int32_t> ids) const;

 private:
  ModelHost() = default;

  std::string directory_;
  double load_seconds_ = 0;
  std::unique_ptr<kernels::WorkerPool> pool_;
  std::unique_ptr<transformer::Weights> weights_;
  std::unique_ptr<transformer::Transformer> transformer_;
  std::optional<model::Tokenizer> tokenizer_;
};

// The message that document and question make: the question after an empty line.
std::string DocumentAndQuestion(std::string_view document, std::string_view question);

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_MODEL_HOST_H_
