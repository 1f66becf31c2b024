// SPDX-License-Identifier: Apache-2.0
#include "core/engine/decode.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/engine/prompt.h"
#include "kernels/head/token_reducer.h"

namespace maskkv::engine {
namespace {

using transformer::kRowBlock;

// How one request chooses its tokens in one step, and the choices.
class TokenSampler {
 public:
  TokenSampler(const Canvas& canvas, std::int32_t mask_id)
      : forbidden_(ForbiddenIds(canvas.params(), mask_id)),
        argmax_(forbidden_),
        gumbel_(canvas.params().seed, static_cast<std::uint32_t>(canvas.step()),
                static_cast<float>(canvas.params().temperature), forbidden_),
        greedy_(canvas.params().temperature == 0),
        choices_(canvas.candidates().size()) {}
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

absl::Status UnknownRequest(RequestId id) {
  return absl::NotFoundError(absl::StrFormat("request: expected one that was added, found %d", id));
}

}  // namespace

absl::Status Decoder::CheckRequest(const DecodeRequest& request) const {
  MASKKV_RETURN_IF_ERROR(Validate(request.params));
  const model::ModelConfig& config = transformer_.config();
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
  const EntryShape& shape = request.cache->shape();
  if (shape.layers != config.layers || shape.kv_heads != config.kv_heads ||
      shape.head_dim != config.head_dim || request.cache->memory() != MemoryKind::kHost) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "cache: expected an entry in host memory of %d layers, %d KV heads of width %d, found %d, "
        "%d, %d",
        config.layers, config.kv_heads, config.head_dim, shape.layers, shape.kv_heads,
        shape.head_dim));
  }
  return absl::OkStatus();
}

absl::StatusOr<RequestId> Decoder::Add(DecodeRequest request) {
  MASKKV_RETURN_IF_ERROR(CheckRequest(request));
  const RequestId id = next_id_++;
  Canvas canvas(request.params, transformer_.config().mask_id);
  requests_.emplace(id, Request{std::move(request), std::move(canvas)});
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
  query_positions_.clear();
  for (auto& [id, request] : requests_) {
    if (!request.running()) continue;
    Sequence sequence{.id = id, .request = &request};
    sequence.first_row = static_cast<std::int64_t>(tokens_.size());
    const auto start = static_cast<std::int32_t>(request.request.prompt_tokens);
    if (request.request.cache == nullptr) {
      for (std::int32_t i = 0; i < start; ++i) {
        tokens_.push_back(request.request.prompt[static_cast<std::size_t>(i)]);
        positions_.push_back(i);
      }
    }
    std::int32_t position = start;
    for (const std::int32_t token : request.canvas.tokens()) {
      tokens_.push_back(token);
      positions_.push_back(position++);
    }
    sequence.rows = static_cast<std::int64_t>(tokens_.size()) - sequence.first_row;
    sequence.first_query = static_cast<std::int64_t>(query_positions_.size());
    sequence.queries = static_cast<std::int64_t>(request.canvas.candidates().size());
    for (const std::int64_t index : request.canvas.candidates()) {
      query_positions_.push_back(start + static_cast<std::int32_t>(index));
    }
    sequences_.push_back(sequence);
  }
}

void Decoder::RunLayers() {
  const auto rows = static_cast<std::int64_t>(tokens_.size());
  const std::int64_t layers = transformer_.config().layers;
  hidden_.Resize(rows * transformer_.hidden());
  kv_.Resize(rows * 2 * transformer_.kv_width());
  transformer_.Embed(tokens_, hidden_.data());
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    transformer_.ProjectKeysValues(layer, hidden_.data(), rows, positions_.data(), kv_.data());
    const bool last = layer + 1 == layers;
    // Only masked rows of the current blocks reach the vocabulary head.
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
        .keys = keys,
        .values = keys + transformer_.kv_width(),
        .ldkv = ld,
        .own_rows = sequence.rows,
        .cached = cache == nullptr ? std::span<const kernels::CachedHead>() : cache->Layer(layer),
        .cached_dtype = cache == nullptr ? kernels::DType::kF32 : cache->shape().dtype,
        .log_sum_exp = nullptr};
    // Blocks are cut relative to the sequence, so that neighbours do not move their borders.
    const std::int64_t total = masked_rows_only ? sequence.queries : sequence.rows;
    for (std::int64_t first = 0; first < total; first += kRowBlock) {
      source.rows = std::min(kRowBlock, total - first);
      if (count + source.rows > kRowBlock) flush();
      sources_.push_back(source);
      count += source.rows;
    }
  }
  flush();
}

void Decoder::GatherMaskedRows() {
  const std::int64_t width = transformer_.hidden();
  query_hidden_.Resize(static_cast<std::int64_t>(query_positions_.size()) * width);
  for (const Sequence& sequence : sequences_) {
    const Canvas& canvas = sequence.request->canvas;
    const std::int64_t response =
        sequence.first_row + sequence.rows - static_cast<std::int64_t>(canvas.tokens().size());
    float* out = query_hidden_.data() + sequence.first_query * width;
    for (const std::int64_t index : canvas.candidates()) {
      out = std::copy_n(hidden_.data() + (response + index) * width, width, out);
    }
  }
}

std::vector<StepEvent> Decoder::Sample() {
  const std::int64_t width = transformer_.hidden();
  const auto queries = static_cast<std::int64_t>(query_positions_.size());
  normed_.Resize(queries * width);
  transformer_.FinalNorm(query_hidden_.data(), queries, normed_.data());

  std::vector<std::unique_ptr<TokenSampler>> samplers;
  std::vector<kernels::HeadRow> rows;
  for (const Sequence& sequence : sequences_) {
    TokenSampler& sampler = *samplers.emplace_back(
        std::make_unique<TokenSampler>(sequence.request->canvas, transformer_.config().mask_id));
    for (std::int64_t i = 0; i < sequence.queries; ++i) {
      const std::int64_t row = sequence.first_query + i;
      rows.push_back({normed_.data() + row * width, sampler.reducer(),
                      query_positions_[static_cast<std::size_t>(row)],
                      &sampler.choices()[static_cast<std::size_t>(i)]});
    }
  }
  transformer_.Project(rows);

  std::vector<StepEvent> events;
  for (std::size_t s = 0; s < sequences_.size(); ++s) {
    Request& request = *sequences_[s].request;
    Canvas& canvas = request.canvas;
    StepEvent& event = events.emplace_back();
    event.request = sequences_[s].id;
    event.step = canvas.step();
    std::vector<Prediction> predictions;
    for (std::size_t i = 0; i < canvas.candidates().size(); ++i) {
      const kernels::TokenChoice& choice = samplers[s]->choices()[i];
      if (!choice.valid()) {
        request.failed = true;
        event.status = absl::DataLossError(absl::StrFormat(
            "step %d: answer position %d: expected finite logits, found NaN or infinity",
            event.step, canvas.candidates()[i]));
        break;
      }
      predictions.push_back(
          {canvas.candidates()[i], choice.token, static_cast<float>(choice.confidence())});
    }
    if (request.failed) continue;
    event.committed = canvas.Commit(predictions);
    event.finish_reason = canvas.finish_reason();
  }
  return events;
}

void Decoder::CheckInvariants() const {
  for (const auto& [id, request] : requests_) {
    MASKKV_CHECK(id < next_id_, "ids are given once");
    MASKKV_CHECK(CheckRequest(request.request).ok(), "a request stays valid");
    request.canvas.CheckInvariants();
  }
}

}  // namespace maskkv::engine
