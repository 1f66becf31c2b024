// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/model_host.h"

#include <chrono>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "maskkv/v1/common.pb.h"
#include "services/common/memory.h"
#include "services/common/prompt_text.h"
#include "services/maskkv/prompt_input.h"

namespace maskkv::cli {
absl::StatusOr<std::unique_ptr<ModelHost>> ModelHost::Load(const ModelFlags& flags) {
  const auto start = std::chrono::steady_clock::now();
  std::unique_ptr<ModelHost> host(new ModelHost());
  host->pairs_ = flags.pairs();
  // Subcommands read the profile that their flags name, and know how long their prompts are.
  const services::ModelOptions options{.directory = flags.model,
                                       .dtype = flags.compute(),
                                       .placement = flags.placement,
                                       .weights_cache = flags.weights_cache,
                                       .load_profile = false,
                                       .check_memory = false};
  MASKKV_ASSIGN_OR_RETURN(host->runtime_, services::ModelRuntime::Load(options));
  host->pool_ = std::make_unique<kernels::WorkerPool>(host->runtime_->pool());
  host->seat_.emplace(*host->pool_);
  host->load_seconds_ =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return host;
}

absl::Status ModelHost::Prepare(std::int64_t max_positions, bool all_layers) {
  MASKKV_RETURN_IF_ERROR(
      services::CheckFits(config(), max_positions, all_layers ? config().layers : 1));
  transformer_ =
      std::make_unique<transformer::Transformer>(runtime_->weights(), *pool_, max_positions);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::int32_t>> ModelHost::ChatPrompt(std::string_view text) const {
  if (tokenizer() == nullptr) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s/tokenizer.json: expected a tokenizer for a text prompt, found none: use --prompt-ids",
        directory()));
  }
  const model::Message message{"user", std::string(text)};
  return runtime_->RenderChat({&message, 1});
}

absl::StatusOr<services::PromptIds> ModelHost::DocumentPrompt(const std::string& document,
                                                              const std::string& question) const {
  v1::Prompt prompt;
  prompt.mutable_document()->set_document(document);
  prompt.mutable_document()->set_question(question);
  return runtime_->Tokenize(prompt);
}

absl::StatusOr<std::vector<std::int32_t>> ModelHost::Prompt(const PromptFlags& flags) const {
  if (!flags.prompt_ids.empty()) return ReadIds(flags);
  MASKKV_ASSIGN_OR_RETURN(const std::string document, ReadDocument(flags));
  return ChatPrompt(services::DocumentAndQuestion(document, flags.question));
}

std::string ModelHost::Text(std::span<const std::int32_t> ids) const {
  return tokenizer() != nullptr ? tokenizer()->Decode(ids, /*skip_special=*/true) : std::string();
}

}  // namespace maskkv::cli
