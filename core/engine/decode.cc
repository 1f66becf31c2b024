// SPDX-License-Identifier: Apache-2.0
#include "core/engine/decode.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/engine/constraint.h"
#include "core/engine/prompt.h"
#include "core/model/rope_scaling.h"

namespace maskkv::engine {
namespace {

// Positions that an entry may serve beside a request's rows: before `rows`, and from `after` to
// `end` - 1.
struct ServedPositions {
  std::int64_t rows = 0;
  std::int64_t after = 0;
  std::int64_t end = 0;
};

ServedPositions ServedBy(const DecodeRequest& request) {
  const std::int64_t rows = request.prompt_tokens - std::ssize(request.prompt);
  if (request.suffix_tokens == std::ssize(request.suffix)) return {rows, rows, rows};
  const std::int64_t after = request.prompt_tokens + request.params.gen_length;
  return {rows, after, after + request.suffix_tokens};
}

// Errors: INVALID_ARGUMENT if the entry has a pair at another position.
absl::Status CheckPairs(const KvView& cache, const ServedPositions& served) {
  for (std::int64_t layer = 0; layer < cache.shape().layers; ++layer) {
    for (std::int64_t head = 0; head < cache.shape().kv_heads; ++head) {
      const std::span<const std::int32_t> positions = cache.Positions(layer, head);
      auto wrong = std::ranges::lower_bound(positions, served.rows);
      if (wrong != positions.end() && *wrong >= served.after) {
        wrong = std::ranges::lower_bound(positions, served.end);
      }
      if (wrong == positions.end()) continue;
      const std::string after =
          served.after < served.end
              ? absl::StrFormat(", or at %d to %d", served.after, served.end - 1)
              : "";
      return absl::InvalidArgumentError(absl::StrFormat(
          "cache: layer %d: head %d: expected pairs before position %d, which is recomputed%s, "
          "found one at %d",
          layer, head, served.rows, after, *wrong));
    }
  }
  return absl::OkStatus();
}

absl::Status UnknownRequest(RequestId id) {
  return absl::NotFoundError(absl::StrFormat("request: expected one that was added, found %d", id));
}

}  // namespace

absl::Status Decoder::CheckRequest(const DecodeRequest& request) const {
  MASKKV_RETURN_IF_ERROR(Validate(request.params));
  const model::ModelConfig& config = transformer_.config();
  MASKKV_RETURN_IF_ERROR(model::CheckRopeScale(request.rope_scale, config.rope_theta));
  MASKKV_RETURN_IF_ERROR(CheckFilling(request));
  MASKKV_RETURN_IF_ERROR(
      CheckAutomaton(request.params, config.mask_id, config.vocab_rows, request.response));
  MASKKV_RETURN_IF_ERROR(CheckGuidance(request));
  const std::int64_t masks = request.params.longest();
  if (request.cache == nullptr) {
    if (request.params.refreshes()) {
      return absl::InvalidArgumentError(
          "refresh_every, refresh_floor: expected 0 without a cache, found another value");
    }
    if (static_cast<std::int64_t>(request.prompt.size()) != request.prompt_tokens) {
      return absl::InvalidArgumentError(
          absl::StrFormat("prompt: expected prompt_tokens %d ids without a cache, found %d",
                          request.prompt_tokens, request.prompt.size()));
    }
    return ValidatePrompt(config, request.prompt, masks, transformer_.max_positions(),
                          request.suffix);
  }
  const std::int64_t most = transformer_.max_positions();
  if (request.suffix_tokens < 0 || masks > most || request.suffix_tokens > most - masks) {
    return absl::InvalidArgumentError(
        absl::StrFormat("suffix_tokens: expected 0 to %d with %d masks, found %d",
                        std::max<std::int64_t>(0, most - masks), masks, request.suffix_tokens));
  }
  const std::int64_t room = most - masks - request.suffix_tokens;
  if (request.prompt_tokens < 0 || request.prompt_tokens > room) {
    return absl::InvalidArgumentError(
        absl::StrFormat("prompt_tokens: expected 0 to %d with %d masks, found %d", room, masks,
                        request.prompt_tokens));
  }
  const auto recomputed = static_cast<std::int64_t>(request.prompt.size());
  if (recomputed > request.prompt_tokens) {
    return absl::InvalidArgumentError(
        absl::StrFormat("prompt: expected at most prompt_tokens %d ids, found %d",
                        request.prompt_tokens, recomputed));
  }
  if (config.shifted_logits && recomputed == 0) {
    return absl::InvalidArgumentError(
        "prompt: expected at least the prompt's last token, from which the first mask is "
        "predicted, "
        "found none");
  }
  MASKKV_RETURN_IF_ERROR(ValidateIds(config, request.prompt, request.prompt_tokens - recomputed));
  MASKKV_RETURN_IF_ERROR(ValidateIds(config, request.suffix, request.prompt_tokens + masks));
  if (request.unconditional != nullptr) {
    MASKKV_RETURN_IF_ERROR(CheckCache(request, *request.unconditional));
  }
  return CheckCache(request, *request.cache);
}

absl::Status Decoder::CheckFilling(const DecodeRequest& request) const {
  const model::ModelConfig& config = transformer_.config();
  const std::int64_t masks = request.params.gen_length;
  MASKKV_RETURN_IF_ERROR(ValidateResponse(config, request.response, masks));
  const std::int64_t suffix = std::ssize(request.suffix);
  if (suffix != request.suffix_tokens && (request.cache == nullptr || suffix != 0)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("suffix: expected suffix_tokens %d ids%s, found %d", request.suffix_tokens,
                        request.cache == nullptr ? " without a cache" : " or none", suffix));
  }
  // A canvas that grows has its end free; a masked prompt has no second part.
  if (!request.params.grows() && !request.params.guided()) return absl::OkStatus();
  const char* const what = request.params.grows() ? "growth" : "cfg_scale above 0";
  if (request.suffix_tokens != 0) {
    return absl::InvalidArgumentError(absl::StrFormat("suffix_tokens: expected 0 with %s, found %d",
                                                      what, request.suffix_tokens));
  }
  const std::int64_t given =
      std::ssize(request.response) - std::ranges::count(request.response, config.mask_id);
  if (given == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("response: expected nothing but masks with %s, found %d ids", what, given));
}

absl::Status Decoder::CheckGuidance(const DecodeRequest& request) const {
  const bool needed = request.params.guided() && request.cache != nullptr;
  if (needed == (request.unconditional != nullptr)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("unconditional: expected %s, found %s",
                      needed ? "the masked prompt's entry with cfg_scale above 0 and a cache"
                             : "none without cfg_scale and a cache",
                      needed ? "none" : "one"));
}

absl::Status Decoder::CheckCache(const DecodeRequest& request, const KvView& cache) const {
  const model::ModelConfig& config = transformer_.config();
  const EntryShape& shape = cache.shape();
  if (shape.layers != config.layers || shape.kv_heads != config.kv_heads ||
      shape.head_dim != config.head_dim || cache.memory() != MemoryKind::kHost) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "cache: expected an entry in host memory of %d layers, %d KV heads of width %d, found %d, "
        "%d, %d",
        config.layers, config.kv_heads, config.head_dim, shape.layers, shape.kv_heads,
        shape.head_dim));
  }
  if (shape.rope_scale != request.rope_scale) {
    return absl::FailedPreconditionError(
        absl::StrFormat("cache: expected keys rotated with the request's rope_scale %g, found %g",
                        request.rope_scale, shape.rope_scale));
  }
  return CheckPairs(cache, ServedBy(request));
}

absl::StatusOr<RequestId> Decoder::Add(DecodeRequest request) {
  MASKKV_RETURN_IF_ERROR(CheckRequest(request));
  const RequestId id = next_id_++;
  Canvas canvas(request.params, transformer_.config().mask_id, request.prompt_tokens,
                request.response);
  auto rope = transformer_.Rope(
      request.rope_scale, request.prompt_tokens + request.params.longest() + request.suffix_tokens);
  const RefreshSchedule refresh(request.params);
  std::optional<MaskMixer> mixer;
  if (decoding::IsMixed(request.params.rule.rule)) {
    mixer.emplace(request.params.rule, transformer_.config().mask_id);
  }
  std::unique_ptr<ResponseCache> response_cache;
  if (request.params.caches_response()) {
    response_cache = std::make_unique<ResponseCache>(request.params, transformer_.config());
  }
  requests_.emplace(id, Request{std::move(request), std::move(canvas), std::move(rope), refresh,
                                std::move(response_cache), std::move(mixer)});
  return id;
}

absl::Status Decoder::SwapCache(RequestId id, std::shared_ptr<const KvView> cache) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return UnknownRequest(id);
  Request& request = it->second;
  if (cache == nullptr || request.request.cache == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrFormat("cache: expected an entry in the place of one, found %s",
                        cache == nullptr ? "none" : "a request without a cache"));
  }
  MASKKV_RETURN_IF_ERROR(CheckCache(request.request, *cache));
  request.request.cache = std::move(cache);
  request.refresh.Swapped();
  if (request.response_cache != nullptr) request.response_cache->Restart();
  return absl::OkStatus();
}

absl::Status Decoder::Remove(RequestId id) {
  return requests_.erase(id) == 1 ? absl::OkStatus() : UnknownRequest(id);
}

absl::Status Decoder::SetPaused(RequestId id, bool paused) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return UnknownRequest(id);
  it->second.paused = paused;
  return absl::OkStatus();
}

const Canvas* Decoder::Find(RequestId id) const {
  const auto it = requests_.find(id);
  return it == requests_.end() ? nullptr : &it->second.canvas;
}

const ResponseCache* Decoder::FindResponseCache(RequestId id) const {
  const auto it = requests_.find(id);
  return it == requests_.end() ? nullptr : it->second.response_cache.get();
}

std::int64_t Decoder::running() const {
  return std::count_if(requests_.begin(), requests_.end(),
                       [](const auto& entry) { return entry.second.running(); });
}

void Decoder::CheckInvariants() const {
  for (const auto& [id, request] : requests_) {
    MASKKV_CHECK(id < next_id_, "ids are given once");
    MASKKV_CHECK(CheckRequest(request.request).ok(), "a request stays valid");
    request.canvas.CheckInvariants();
  }
}

}  // namespace maskkv::engine
