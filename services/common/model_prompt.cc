// SPDX-License-Identifier: Apache-2.0
//
// The part of ModelRuntime that turns prompts of the API into ids and says what answers depend on.
#include <algorithm>
#include <array>
#include <filesystem>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "maskkv/v1/common.pb.h"
#include "services/common/model_runtime.h"
#include "services/common/prompt_text.h"

namespace maskkv::services {
namespace {

constexpr std::size_t kMaxPromptBytes = std::size_t{256} << 20;

absl::Status BadPrompt(std::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "BAD_PROMPT", message);
}

absl::Status BadCanvas(std::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "BAD_CANVAS", message);
}

absl::Status CheckBytes(std::size_t bytes) {
  if (bytes <= kMaxPromptBytes) return absl::OkStatus();
  return BadPrompt(absl::StrFormat("prompt: expected at most %d bytes of text, found %d",
                                   kMaxPromptBytes, bytes));
}

absl::Status CheckIds(const model::ModelConfig& config, std::string_view name,
                      std::span<const std::int32_t> ids) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= config.vocab_rows) {
      return MakeError(absl::StatusCode::kInvalidArgument, "TOKEN_OUT_OF_RANGE",
                       absl::StrFormat("%s: position %d: expected an id from 0 to %d", name, i,
                                       config.vocab_rows - 1));
    }
    if (ids[i] == config.mask_id) {
      return MakeError(
          absl::StatusCode::kInvalidArgument, "MASK_IN_PROMPT",
          absl::StrFormat("%s: position %d: expected no mask token, found it", name, i));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<model::Message>> MessagesOf(const v1::Chat& chat) {
  if (chat.messages().empty()) return BadPrompt("chat: expected a message, found none");
  std::vector<model::Message> messages;
  std::size_t bytes = 0;
  for (const v1::Message& message : chat.messages()) {
    if (message.role() != "system" && message.role() != "user" && message.role() != "assistant") {
      return BadPrompt(absl::StrFormat(
          "chat: message %d: role: expected \"system\", \"user\" or \"assistant\", found another",
          messages.size()));
    }
    MASKKV_RETURN_IF_ERROR(
        CheckUtf8(absl::StrFormat("chat: message %d", messages.size()), message.content()));
    bytes += message.content().size();
    messages.push_back({message.role(), message.content()});
  }
  MASKKV_RETURN_IF_ERROR(CheckBytes(bytes));
  return messages;
}

std::size_t CommonStart(std::span<const std::int32_t> a, std::span<const std::int32_t> b) {
  return static_cast<std::size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

// What target_clones picks (kernels/base/multiversion.h); "baseline" also stands for the builds in
// which there is one version only.
std::string_view KernelIsa() {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return "avx512";
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "avx2";
#endif
  return "baseline";
}

}  // namespace

bool IsMasked(const model::ModelConfig& config, std::span<const std::int32_t> ids) {
  return !ids.empty() && std::ranges::count(ids, config.mask_id) == std::ssize(ids);
}

absl::Status ModelRuntime::LoadText(const std::string& directory) {
  std::error_code unreadable;  // then loading says so
  if (std::filesystem::exists(directory + "/" + std::string(model::Checkpoint::kTokenizerFile),
                              unreadable) ||
      unreadable) {
    MASKKV_ASSIGN_OR_RETURN(model::Tokenizer tokenizer, model::Tokenizer::Load(directory));
    tokenizer_ = std::move(tokenizer);
    // A template that is missing or unknown matters to those who want to chat only.
    chat_ = model::ChatTemplate::Load(directory, *tokenizer_);
  }
  stop_ids_ = StopIds(config(), tokenizer());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::int32_t>> ModelRuntime::RenderChat(
    std::span<const model::Message> messages) const {
  if (!tokenizer_) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "NO_TOKENIZER",
        "prompt: expected token ids, found text: the checkpoint has no tokenizer.json");
  }
  if (!chat_.ok()) return chat_.status();
  return chat_->Render(messages, /*add_generation_prompt=*/true);
}

absl::StatusOr<PromptIds> ModelRuntime::TokenizeDocument(std::string_view document,
                                                         std::string_view question) const {
  MASKKV_RETURN_IF_ERROR(CheckUtf8("document", document));
  MASKKV_RETURN_IF_ERROR(CheckUtf8("question", question));
  MASKKV_RETURN_IF_ERROR(CheckBytes(document.size() + question.size()));
  const auto render = [&](std::string_view ending) {
    const model::Message message{"user", DocumentAndQuestion(document, ending)};
    return RenderChat({&message, 1});
  };
  PromptIds prompt;
  MASKKV_ASSIGN_OR_RETURN(prompt.ids, render(question));
  // How the document's last characters become tokens depends on what follows: nothing, a letter,
  // more line ends. What no ending changes is common to all questions, so that it is the same
  // number for all of them.
  std::size_t common = prompt.ids.size();
  for (const std::string_view ending : {"", "a", "\n1"}) {
    MASKKV_ASSIGN_OR_RETURN(const std::vector<std::int32_t> other, render(ending));
    common = std::min(common, CommonStart(prompt.ids, other));
  }
  prompt.document_tokens = static_cast<std::int64_t>(common);
  return prompt;
}

absl::StatusOr<std::vector<std::int32_t>> ModelRuntime::TokenizeText(std::string_view name,
                                                                     std::string_view text) const {
  MASKKV_RETURN_IF_ERROR(CheckUtf8(name, text));
  MASKKV_RETURN_IF_ERROR(CheckBytes(text.size()));
  if (!tokenizer_) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "NO_TOKENIZER",
                     absl::StrFormat("%s: expected token ids, found text: the checkpoint has no "
                                     "tokenizer.json",
                                     name));
  }
  return tokenizer_->Encode(text, model::SpecialText::kPlain);
}

absl::StatusOr<std::vector<std::int32_t>> ModelRuntime::TokenizeCanvas(const v1::Canvas& canvas,
                                                                       std::int64_t most) const {
  std::vector<std::int32_t> ids;
  for (const v1::CanvasPiece& piece : canvas.pieces()) {
    std::vector<std::int32_t> given;
    std::int64_t masks = 0;
    if (piece.form_case() == v1::CanvasPiece::kMasks) {
      masks = piece.masks();
    } else if (piece.form_case() == v1::CanvasPiece::kText) {
      MASKKV_ASSIGN_OR_RETURN(given, TokenizeText("canvas", piece.text()));
    } else if (piece.form_case() == v1::CanvasPiece::kTokens) {
      given.assign(piece.tokens().ids().begin(), piece.tokens().ids().end());
    }
    MASKKV_RETURN_IF_ERROR(CheckIds(config(), "canvas", given));
    const std::int64_t length = masks + std::ssize(given);
    if (length < 1) {
      return BadCanvas("canvas: a piece: expected masks, text or tokens, at least 1, found none");
    }
    if (length > most - std::ssize(ids)) {
      return BadCanvas(absl::StrFormat("canvas: expected at most %d positions, found more", most));
    }
    ids.insert(ids.end(), given.begin(), given.end());
    ids.insert(ids.end(), static_cast<std::size_t>(masks), config().mask_id);
  }
  if (std::ranges::find(ids, config().mask_id) == ids.end()) {
    return BadCanvas("canvas: expected at least one mask, found none");
  }
  return ids;
}

absl::StatusOr<PromptIds> ModelRuntime::Tokenize(const v1::Prompt& prompt,
                                                 MaskedPrompt masked) const {
  MASKKV_ASSIGN_OR_RETURN(PromptIds result, TokenizeForm(prompt));
  if (config().shifted_logits && result.ids.empty()) {
    return BadPrompt(
        "prompt: expected at least one token, from which the first mask is predicted, found none");
  }
  if (masked == MaskedPrompt::kRefused || !IsMasked(config(), result.ids)) {
    MASKKV_RETURN_IF_ERROR(CheckIds(config(), "prompt", result.ids));
  }
  if (!prompt.has_suffix()) return result;
  const v1::PromptSuffix& suffix = prompt.suffix();
  if (suffix.form_case() == v1::PromptSuffix::kText) {
    MASKKV_ASSIGN_OR_RETURN(result.suffix, TokenizeText("suffix", suffix.text()));
  } else {
    result.suffix.assign(suffix.tokens().ids().begin(), suffix.tokens().ids().end());
  }
  if (result.suffix.empty()) return BadPrompt("suffix: expected text or tokens, found none");
  MASKKV_RETURN_IF_ERROR(CheckIds(config(), "suffix", result.suffix));
  return result;
}

absl::StatusOr<PromptIds> ModelRuntime::TokenizeForm(const v1::Prompt& prompt) const {
  PromptIds result;
  if ((prompt.has_chat() || prompt.has_document()) && tokenizer_ && !chat_.ok()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "NO_CHAT_TEMPLATE",
                     "prompt: expected token ids, found text: the checkpoint has no chat template "
                     "that is known");
  }
  switch (prompt.form_case()) {
    case v1::Prompt::kTokens:
      result.ids.assign(prompt.tokens().ids().begin(), prompt.tokens().ids().end());
      result.document_tokens = prompt.tokens().document_tokens();
      if (result.document_tokens < 0 ||
          result.document_tokens > static_cast<std::int64_t>(result.ids.size())) {
        return BadPrompt(absl::StrFormat("tokens: document_tokens: expected 0 to %d, found %d",
                                         result.ids.size(), result.document_tokens));
      }
      break;
    case v1::Prompt::kChat: {
      MASKKV_ASSIGN_OR_RETURN(const std::vector<model::Message> messages,
                              MessagesOf(prompt.chat()));
      MASKKV_ASSIGN_OR_RETURN(result.ids, RenderChat(messages));
      break;
    }
    case v1::Prompt::kDocument: {
      MASKKV_ASSIGN_OR_RETURN(
          result, TokenizeDocument(prompt.document().document(), prompt.document().question()));
      break;
    }
    case v1::Prompt::kText: {
      MASKKV_ASSIGN_OR_RETURN(result.ids, TokenizeText("prompt", prompt.text()));
      break;
    }
    case v1::Prompt::FORM_NOT_SET:
      return BadPrompt("prompt: expected chat, document, tokens or text, found none");
  }
  return result;
}

void ModelRuntime::FillProvenance(v1::Provenance& provenance) const {
  provenance.set_model_fingerprint(fingerprint_);
  provenance.set_dtype(std::string(kernels::Name(dtype())));
  provenance.set_isa(std::string(KernelIsa()));
  provenance.set_build(MASKKV_VERSION);
}

}  // namespace maskkv::services
