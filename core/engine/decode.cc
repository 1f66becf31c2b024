// SPDX-License-Identifier: Apache-2.0
#include "core/engine/decode.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "core/engine/prompt.h"
#include "core/model/rope_scaling.h"

namespace maskkv::engine {
namespace {

using transformer::kRowBlock;

// How one request chooses its tokens in one step, and the choices.
class TokenSampler {
 public:
  TokenSampler(const Canvas& canvas, std::int32_t mask_id, std::int64_t rows)
      : forbidden_(ForbiddenIds(canvas.params(), mask_id)),
        argmax_(forbidden_),
        gumbel_(canvas.params().seed, static_cast<std::uint32_t>(canvas.step()),
                static_cast<float>(canvas.params().temperature), forbidden_),
        greedy_(canvas.params().temperature == 0),
        choices_(static_cast<std::size_t>(rows)) {}
  TokenSampler(const TokenSampler&) = delete;
  TokenSampler& operator=(const TokenSampler&) = delete;

  const kernels::LogitReducer* reducer() const {
    if (greedy_) return &argmax_;
    return &gumbel_;
  }
  std::vector<kernels::TokenChoice>& choices() { return choices_; }

 private:
  static std::vector<std::int32_t> ForbiddenIds(const GenerateParams& params,
                                                std::int32_t mask_id) {
    std::vector<std::int32_t> ids{mask_id};
    if (params.suppress_eos && params.stop_ids.front() != mask_id) {
      ids.push_back(params.stop_ids.front());
    }
    std::sort(ids.begin(), ids.end());
    return ids;
  }

  const std::vector<std::int32_t> forbidden_;  // the reducers refer to it
  const kernels::ArgmaxReducer argmax_;
  const kernels::GumbelReducer gumbel_;
  const bool greedy_;
  std::vector<kernels::TokenChoice> choices_;
};

// REQUIRES: the choice is valid.
Prediction PredictionOf(std::int64_t position, const kernels::TokenChoice& choice) {
  return {position, choice.token, static_cast<float>(choice.confidence()),
          static_cast<float>(choice.log_confidence())};
}

// Errors: INVALID_ARGUMENT if the entry has a pair at first_row's position or after it.
absl::Status CheckPairsBefore(const KvView& cache, std::int64_t first_row) {
  for (std::int64_t layer = 0; layer < cache.shape().layers; ++layer) {
    for (std::int64_t head = 0; head < cache.shape().kv_heads; ++head) {
      const std::span<const std::int32_t> positions = cache.Positions(layer, head);
      if (positions.empty() || positions.back() < first_row) continue;
      return absl::InvalidArgumentError(absl::StrFormat(
          "cache: layer %d: head %d: expected pairs before position %d, which is recomputed, found "
          "one at %d",
          layer, head, first_row, positions.back()));
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
  const std::int64_t masks = request.params.gen_length;
  if (request.cache == nullptr) {
    if (static_cast<std::int64_t>(request.prompt.size()) != request.prompt_tokens) {
      return absl::InvalidArgumentError(
          absl::StrFormat("prompt: expected prompt_tokens %d ids without a cache, found %d",
                          request.prompt_tokens, request.prompt.size()));
    }
    return ValidatePrompt(config, request.prompt, masks, transformer_.max_positions());
  }
  if (request.prompt_tokens < 0 || masks > transformer_.max_positions() ||
      request.prompt_tokens > transformer_.max_positions() - masks) {
    return absl::InvalidArgumentError(
        absl::StrFormat("prompt_tokens: expected 0 to %d with %d masks, found %d",
                        transformer_.max_positions() - masks, masks, request.prompt_tokens));
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
  const std::int64_t first_row = request.prompt_tokens - recomputed;
  MASKKV_RETURN_IF_ERROR(ValidateIds(config, request.prompt, first_row));
  const EntryShape& shape = request.cache->shape();
  if (shape.layers != config.layers || shape.kv_heads != config.kv_heads ||
      shape.head_dim != config.head_dim || request.cache->memory() != MemoryKind::kHost) {
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
  return CheckPairsBefore(*request.cache, first_row);
}

absl::StatusOr<RequestId> Decoder::Add(DecodeRequest request) {
  MASKKV_RETURN_IF_ERROR(CheckRequest(request));
  const RequestId id = next_id_++;
  Canvas canvas(request.params, transformer_.config().mask_id);
  auto rope =
      transformer_.Rope(request.rope_scale, request.prompt_tokens + request.params.gen_length);
  requests_.emplace(id, Request{std::move(request), std::move(canvas), std::move(rope)});
  return id;
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

std::int64_t Decoder::running() const {
  return std::count_if(requests_.begin(), requests_.end(),
                       [](const auto& entry) { return entry.second.running(); });
}

std::vector<StepEvent> Decoder::Step() {
  GatherRows();
  if (sequences_.empty()) return {};
  RunLayers();
  return Sample();
}

void Decoder::GatherRows() {
  sequences_.clear();
  tokens_.clear();
  positions_.clear();
  rotations_.clear();
  query_answers_.clear();
  query_positions_.clear();
  for (auto& [id, request] : requests_) {
    if (!request.running()) continue;
    Sequence sequence{.id = id, .request = &request};
    sequence.first_row = static_cast<std::int64_t>(tokens_.size());
    const std::vector<std::int32_t>& prompt = request.request.prompt;
    const std::span<const std::int32_t> answer = request.canvas.tokens();
    tokens_.insert(tokens_.end(), prompt.begin(), prompt.end());
    tokens_.insert(tokens_.end(), answer.begin(), answer.end());
    const auto start = static_cast<std::int32_t>(request.request.prompt_tokens);
    const auto end = start + static_cast<std::int32_t>(answer.size());
    for (std::int32_t i = start - static_cast<std::int32_t>(prompt.size()); i < end; ++i) {
      positions_.push_back(i);
    }
    sequence.rows = static_cast<std::int64_t>(tokens_.size()) - sequence.first_row;
    transformer::AddRopeRun({sequence.rows, request.rope.get()}, rotations_);
    GatherQueries(sequence);
    sequences_.push_back(sequence);
  }
}

void Decoder::GatherQueries(Sequence& sequence) {
  const Request& request = *sequence.request;
  const std::span<const std::int64_t> candidates = request.canvas.candidates();
  sequence.first_query = static_cast<std::int64_t>(query_answers_.size());
  sequence.candidates = static_cast<std::int64_t>(candidates.size());
  query_answers_.insert(query_answers_.end(), candidates.begin(), candidates.end());
  if (request.request.provisional) {  // every mask of the current block is a candidate
    for (std::int64_t i = candidates.back() + 1; i < request.canvas.params().gen_length; ++i) {
      if (request.canvas.masked(i)) query_answers_.push_back(i);
    }
  }
  sequence.queries = static_cast<std::int64_t>(query_answers_.size()) - sequence.first_query;
  for (auto i = query_positions_.size(); i < query_answers_.size(); ++i) {
    query_positions_.push_back(
        static_cast<std::int32_t>(request.request.prompt_tokens + query_answers_[i] - shift()));
  }
}

void Decoder::RunLayers() {
  const auto rows = static_cast<std::int64_t>(tokens_.size());
  const std::int64_t layers = transformer_.config().layers;
  hidden_.Resize(rows * transformer_.hidden());
  kv_.Resize(rows * 2 * transformer_.kv_width());
  transformer_.Embed(tokens_, hidden_.data());
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    transformer_.ProjectKeysValues(layer, hidden_.data(), rows, positions_.data(), rotations_,
                                   kv_.data());
    const bool last = layer + 1 == layers;
    // Only what predicts masks of the current blocks reaches the vocabulary head.
    if (last) GatherMaskedRows();
    Advance(layer, last);
  }
}

void Decoder::Advance(std::int64_t layer, bool masked_rows_only) {
  float* hidden = masked_rows_only ? query_hidden_.data() : hidden_.data();
  const std::int32_t* positions = masked_rows_only ? query_positions_.data() : positions_.data();
  const std::int64_t ld = 2 * transformer_.kv_width();
  std::int64_t begin = 0, count = 0;
  sources_.clear();
  const auto flush = [&] {
    if (count == 0) return;
    transformer_.Advance(layer, hidden + begin * transformer_.hidden(), count, positions + begin,
                         sources_);
    begin += count;
    count = 0;
    sources_.clear();
  };
  for (const Sequence& sequence : sequences_) {
    const KvView* cache = sequence.request->request.cache.get();
    const float* keys = kv_.data() + sequence.first_row * ld;
    transformer::AttentionSource source{
        .rows = 0,
        .rope = sequence.request->rope.get(),
        .keys = keys,
        .values = keys + transformer_.kv_width(),
        .ldkv = ld,
        .own_rows = sequence.rows,
        .cached = cache == nullptr ? std::span<const kernels::CachedHead>() : cache->Layer(layer),
        .cached_dtype = cache == nullptr ? kernels::DType::kF32 : cache->shape().dtype,
        .log_sum_exp = nullptr};
    // Blocks are cut relative to the sequence, so that neighbours do not move their borders.
    const auto add = [&](std::int64_t total) {
      for (std::int64_t first = 0; first < total; first += kRowBlock) {
        source.rows = std::min(kRowBlock, total - first);
        if (count + source.rows > kRowBlock) flush();
        sources_.push_back(source);
        count += source.rows;
      }
    };
    if (masked_rows_only) {
      add(sequence.candidates);
      add(sequence.queries - sequence.candidates);  // which move no border of the candidates
    } else {
      add(sequence.rows);
    }
  }
  flush();
}

void Decoder::GatherMaskedRows() {
  const std::int64_t width = transformer_.hidden();
  query_hidden_.Resize(static_cast<std::int64_t>(query_answers_.size()) * width);
  float* out = query_hidden_.data();
  for (const Sequence& sequence : sequences_) {
    const std::int64_t response =
        sequence.first_row + sequence.rows - sequence.request->canvas.params().gen_length;
    for (const std::int64_t index : QueryAnswers(sequence)) {
      out = std::copy_n(hidden_.data() + (response + index - shift()) * width, width, out);
    }
  }
}

std::span<const std::int64_t> Decoder::QueryAnswers(const Sequence& sequence) const {
  return std::span(query_answers_)
      .subspan(static_cast<std::size_t>(sequence.first_query),
               static_cast<std::size_t>(sequence.queries));
}

std::vector<StepEvent> Decoder::Sample() {
  const std::int64_t width = transformer_.hidden();
  const auto queries = static_cast<std::int64_t>(query_positions_.size());
  normed_.Resize(queries * width);
  transformer_.FinalNorm(query_hidden_.data(), queries, normed_.data());

  std::vector<std::unique_ptr<TokenSampler>> samplers;
  std::vector<kernels::HeadRow> rows;
  for (const Sequence& sequence : sequences_) {
    TokenSampler& sampler = *samplers.emplace_back(std::make_unique<TokenSampler>(
        sequence.request->canvas, transformer_.config().mask_id, sequence.queries));
    for (std::int64_t i = 0; i < sequence.queries; ++i) {
      const std::int64_t row = sequence.first_query + i;
      // The noise is that of the position which is decided.
      const auto decided =
          static_cast<std::int32_t>(query_positions_[static_cast<std::size_t>(row)] + shift());
      rows.push_back({normed_.data() + row * width, sampler.reducer(), decided,
                      &sampler.choices()[static_cast<std::size_t>(i)]});
    }
  }
  transformer_.Project(rows);

  std::vector<StepEvent> events;
  for (std::size_t s = 0; s < sequences_.size(); ++s) {
    events.push_back(Commit(sequences_[s], samplers[s]->choices()));
  }
  return events;
}

StepEvent Decoder::Commit(const Sequence& sequence, std::span<const kernels::TokenChoice> choices) {
  Request& request = *sequence.request;
  Canvas& canvas = request.canvas;
  StepEvent event;
  event.request = sequence.id;
  event.step = canvas.step();
  event.rows = sequence.rows;
  const std::span<const std::int64_t> positions = QueryAnswers(sequence);
  const auto candidates = static_cast<std::size_t>(sequence.candidates);
  std::vector<Prediction> predictions;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    if (choices[i].valid()) {
      predictions.push_back(PredictionOf(positions[i], choices[i]));
    } else if (i < candidates) {
      request.failed = true;
      event.status = MakeError(
          absl::StatusCode::kDataLoss, "NOT_FINITE",
          absl::StrFormat("step %d: answer position %d: expected finite logits, found NaN or "
                          "infinity",
                          event.step, positions[i]));
      return event;
    }
  }
  event.committed = canvas.Commit(std::span(predictions).first(candidates));
  event.finish_reason = canvas.finish_reason();
  if (!request.request.provisional) return event;
  std::ranges::copy_if(predictions, std::back_inserter(event.provisional),
                       [&](const Prediction& p) { return canvas.masked(p.position); });
  return event;
}

void Decoder::CheckInvariants() const {
  for (const auto& [id, request] : requests_) {
    MASKKV_CHECK(id < next_id_, "ids are given once");
    MASKKV_CHECK(CheckRequest(request.request).ok(), "a request stays valid");
    request.canvas.CheckInvariants();
  }
}

}  // namespace maskkv::engine
