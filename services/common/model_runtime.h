// SPDX-License-Identifier: Apache-2.0
//
// A loaded checkpoint as services use it: packed weights, tokenizer, chat template, profile,
// prompts from the API turned into ids. Immutable after Load and safe to share between prefill and
// decode in one process: the weights are in memory once; with a folder for packed weights, once for
// all processes. Engines are made per service (a
// Transformer and a WorkerPool each are single-threaded users).
#ifndef MASKKV_SERVICES_COMMON_MODEL_RUNTIME_H_
#define MASKKV_SERVICES_COMMON_MODEL_RUNTIME_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/arena/handle.h"
#include "core/model/chat_template.h"
#include "core/model/tokenizer.h"
#include "core/policy/profile.h"
#include "core/transformer/weights.h"
#include "kernels/parallel/worker_pool.h"
#include "services/common/placement.h"

namespace maskkv::v1 {
class Canvas;
class Prompt;
class Provenance;
}  // namespace maskkv::v1

namespace maskkv::services {

// Positions without an option: a prompt of 128k tokens and an answer of the longest default.
inline constexpr std::int64_t kLongestDefault = 131'072 + 4'096;

struct ModelOptions {
  std::string directory{};                      // checkpoint
  kernels::DType dtype = kernels::DType::kF32;  // of weights and GEMM inputs
  PlacementOptions placement{};                 // of packing too
  std::string weights_cache{};                  // folder of packed weights; "": none
  // Prompt + answer. 0: kLongestDefault, or the checkpoint's length if that is more.
  std::int64_t max_positions = 0;
  std::string profile{};  // "": maskkv_profile.json beside the weights
  bool load_profile = true;
  // Whether max_positions, where it is given, must fit into the memory that is left: hidden states
  // and one layer's K and V. Requests are looked at one by one in any case.
  bool check_memory = true;
};

struct PromptIds {
  std::vector<std::int32_t> ids;
  // The first ids that every question about the same document starts with, the empty one too. 0 for
  // a chat; for token ids what the caller says.
  std::int64_t document_tokens = 0;
  // What the prompt goes on with after the answer.
  std::vector<std::int32_t> suffix;

  std::int64_t tokens() const { return std::ssize(ids) + std::ssize(suffix); }
};

// Whether a prompt may be token ids that are nothing but masks, at least one: the unconditional
// prompt of classifier-free guidance, which is prefilled but never answered.
enum class MaskedPrompt : std::uint8_t { kRefused, kAllowed };

// Whether the ids are such a prompt.
bool IsMasked(const model::ModelConfig& config, std::span<const std::int32_t> ids);

class ModelRuntime {
 public:
  // Logs the worker pool, where the weights are, and what was wrong with their cache: that is never
  // an error.
  // A missing default profile is no error, nor is a missing tokenizer: then prompts are token ids.
  // Errors: of PlacePoolHere and of the checkpoint's readers; INVALID_ARGUMENT for max_positions
  // beyond model::ModelConfig::kMaxSequence; FAILED_PRECONDITION for a profile of other weights;
  // RESOURCE_EXHAUSTED (OUT_OF_MEMORY).
  static absl::StatusOr<std::shared_ptr<const ModelRuntime>> Load(const ModelOptions& options);

  const transformer::Weights& weights() const { return *weights_; }
  const model::ModelConfig& config() const { return weights_->config(); }
  kernels::DType dtype() const { return weights_->compute(); }
  kernels::DType kv_dtype() const { return weights_->kv_dtype(); }  // of cached pairs
  // What every pool that computes with the weights is made of. In a service, LeaveCpusTo it.
  const kernels::PoolOptions& pool() const { return pool_; }
  std::int64_t max_positions() const { return max_positions_; }
  const std::string& name() const { return name_; }                // last part of the path
  const std::string& fingerprint() const { return fingerprint_; }  // 64 hexadecimal digits
  const arena::Digest& fingerprint_digest() const { return fingerprint_digest_; }
  // The ids that end an answer: eos, then end of turn.
  const std::vector<std::int32_t>& stop_ids() const { return stop_ids_; }
  const model::Tokenizer* tokenizer() const { return tokenizer_ ? &*tokenizer_ : nullptr; }
  // Null without a profile.
  const policy::ImportanceProfile* profile() const { return profile_ ? &*profile_ : nullptr; }

  // The prompt's ids, each good for a forward. Messages of errors hold no text and no ids.
  // Errors: INVALID_ARGUMENT (BAD_PROMPT: no form set, no messages, a bad role, more text than 256
  // MiB, document_tokens out of range; BAD_UTF8; TOKEN_OUT_OF_RANGE; MASK_IN_PROMPT),
  // FAILED_PRECONDITION (NO_TOKENIZER, NO_CHAT_TEMPLATE).
  absl::StatusOr<PromptIds> Tokenize(const v1::Prompt& prompt,
                                     MaskedPrompt masked = MaskedPrompt::kRefused) const;

  // What an answer of at most `most` positions starts with: ids, the mask id where nothing is
  // decided. Errors: INVALID_ARGUMENT (BAD_CANVAS: an empty piece, no mask, longer than `most`;
  // BAD_UTF8; TOKEN_OUT_OF_RANGE; MASK_IN_PROMPT), FAILED_PRECONDITION (NO_TOKENIZER).
  absl::StatusOr<std::vector<std::int32_t>> TokenizeCanvas(const v1::Canvas& canvas,
                                                           std::int64_t most) const;

  // Messages through the chat template, ending with an assistant's header.
  // Errors: as Tokenize, and of the template's and tokenizer's readers.
  absl::StatusOr<std::vector<std::int32_t>> RenderChat(
      std::span<const model::Message> messages) const;

  // OK if prompt + masks can be positions of a forward.
  // Errors: INVALID_ARGUMENT (BAD_MASKS; PROMPT_TOO_LONG, with the limit).
  absl::Status CheckLength(std::int64_t prompt_tokens, std::int64_t masks) const;

  // Fills model_fingerprint, dtype, isa, build.
  void FillProvenance(v1::Provenance& provenance) const;

 private:
  ModelRuntime() = default;

  absl::Status LoadWeights(model::Checkpoint checkpoint, const ModelOptions& options);
  absl::Status LoadText(const std::string& directory);
  absl::Status LoadProfile(const ModelOptions& options);
  // Text without a template; `name` says of what.
  absl::StatusOr<std::vector<std::int32_t>> TokenizeText(std::string_view name,
                                                         std::string_view text) const;
  absl::StatusOr<PromptIds> TokenizeForm(const v1::Prompt& prompt) const;
  absl::StatusOr<PromptIds> TokenizeDocument(std::string_view document,
                                             std::string_view question) const;

  kernels::PoolOptions pool_;
  std::int64_t max_positions_ = 0;
  std::string name_, fingerprint_;
  arena::Digest fingerprint_digest_{};
  std::vector<std::int32_t> stop_ids_;
  std::unique_ptr<transformer::Weights> weights_;
  std::optional<model::Tokenizer> tokenizer_;
  absl::StatusOr<model::ChatTemplate> chat_ = absl::NotFoundError("");
  std::optional<policy::ImportanceProfile> profile_;
};

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_MODEL_RUNTIME_H_
