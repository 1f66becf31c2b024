// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/model_host.h"

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/engine/prompt.h"
#include "core/model/chat_template.h"
#include "services/maskkv/input.h"
#include "services/maskkv/memory.h"

namespace maskkv::cli {
namespace {

constexpr std::size_t kMaxDocumentBytes = std::size_t{256} << 20;

absl::StatusOr<std::vector<std::int32_t>> ParseIds(const std::string& path,
                                                   const std::string& text) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_array()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: expected a JSON array of token ids, found %s", path,
                        json.is_discarded() ? "no JSON" : json.type_name()));
  }
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const nlohmann::json& value = json[i];
    // A nested value is named by its type: it may be too deep to print.
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > INT32_MAX) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "%s: element %d: expected a token id from 0 to %d, found %.40s", path, i, INT32_MAX,
          value.is_structured() ? value.type_name() : value.dump(-1, ' ', true)));
    }
    ids.push_back(static_cast<std::int32_t>(value.get<std::uint64_t>()));
  }
  return ids;
}

}  // namespace

std::string DocumentAndQuestion(std::string_view document, std::string_view question) {
  std::string text(document);
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  if (!question.empty()) text.append(text.empty() ? "" : "\n\n").append(question);
  return text;
}

absl::StatusOr<std::unique_ptr<ModelHost>> ModelHost::Load(const ModelFlags& flags) {
  const auto start = std::chrono::steady_clock::now();
  std::unique_ptr<ModelHost> host(new ModelHost());
  host->directory_ = flags.model;
  const int threads = flags.threads > 0
                          ? flags.threads
                          : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  host->pool_ = std::make_unique<kernels::WorkerPool>(threads);
  MASKKV_ASSIGN_OR_RETURN(model::Checkpoint checkpoint, model::Checkpoint::Open(flags.model));
  MASKKV_ASSIGN_OR_RETURN(
      transformer::Weights weights,
      transformer::Weights::Load(std::move(checkpoint), flags.compute(), *host->pool_));
  host->weights_ = std::make_unique<transformer::Weights>(std::move(weights));
  std::error_code unreadable;  // then loading says so
  if (std::filesystem::exists(flags.model + "/tokenizer.json", unreadable) || unreadable) {
    MASKKV_ASSIGN_OR_RETURN(model::Tokenizer tokenizer, model::Tokenizer::Load(flags.model));
    host->tokenizer_ = std::move(tokenizer);
  }
  host->load_seconds_ =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return host;
}

absl::Status ModelHost::Prepare(std::int64_t max_positions, bool all_layers) {
  MASKKV_RETURN_IF_ERROR(CheckFits(config(), max_positions, all_layers ? config().layers : 1));
  transformer_ = std::make_unique<transformer::Transformer>(*weights_, *pool_, max_positions);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::int32_t>> ModelHost::ChatPrompt(std::string_view text) const {
  if (!tokenizer_) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s/tokenizer.json: expected a tokenizer for a text prompt, found none: use --prompt-ids",
        directory_));
  }
  MASKKV_ASSIGN_OR_RETURN(const model::ChatTemplate chat,
                          model::ChatTemplate::Load(directory_, *tokenizer_));
  const model::Message message{"user", std::string(text)};
  return chat.Render({&message, 1}, /*add_generation_prompt=*/true);
}

absl::StatusOr<std::vector<std::int32_t>> ModelHost::Prompt(const PromptFlags& flags) const {
  if (!flags.prompt_ids.empty()) {
    MASKKV_ASSIGN_OR_RETURN(const std::string text, ReadInput(flags.prompt_ids, kMaxDocumentBytes));
    return ParseIds(flags.prompt_ids, text);
  }
  MASKKV_ASSIGN_OR_RETURN(const std::string document, ReadInput(flags.document, kMaxDocumentBytes));
  MASKKV_RETURN_IF_ERROR(CheckUtf8(flags.document, document));
  MASKKV_RETURN_IF_ERROR(CheckUtf8("--question", flags.question));
  return ChatPrompt(DocumentAndQuestion(document, flags.question));
}

std::vector<std::int32_t> ModelHost::StopIds() const {
  std::vector<std::int32_t> ids{config().eos_id};
  if (tokenizer_) {
    const std::optional<std::int32_t> end_of_turn = tokenizer_->TokenId("<|eot_id|>");
    if (end_of_turn && *end_of_turn != ids.front()) ids.push_back(*end_of_turn);
  }
  return ids;
}

std::string ModelHost::Text(std::span<const std::int32_t> ids) const {
  return tokenizer_ ? tokenizer_->Decode(ids, /*skip_special=*/true) : std::string();
}

}  // namespace maskkv::cli
