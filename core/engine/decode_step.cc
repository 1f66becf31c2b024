// SPDX-License-Identifier: Apache-2.0
//
// One step of the batch: rows, layers, predictions, commits.
#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/engine/decode.h"
#include "core/engine/token_sampler.h"

namespace maskkv::engine {

using transformer::kRowBlock;

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
  mixed_rows_.clear();
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
    GatherMixes(sequence);
    sequences_.push_back(sequence);
  }
}

void Decoder::GatherQueries(Sequence& sequence) {
  const Request& request = *sequence.request;
  const std::span<const std::int64_t> candidates = request.canvas.candidates();
  sequence.first_query = static_cast<std::int64_t>(query_answers_.size());
  sequence.candidates = static_cast<std::int64_t>(candidates.size());
  query_answers_.insert(query_answers_.end(), candidates.begin(), candidates.end());
  // Every mask of the current block is a candidate, all behind it are masks.
  const Canvas& canvas = request.canvas;
  const std::int64_t behind = candidates.back() + 1;
  const std::int64_t watched = canvas.watches_end() ? canvas.watched_from() : canvas.length();
  const auto gather = [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t i = from; i < to; ++i) {
      if (canvas.masked(i)) query_answers_.push_back(i);
    }
    return static_cast<std::int64_t>(query_answers_.size()) - sequence.first_query;
  };
  sequence.watched = gather(std::max(behind, watched), canvas.length()) - sequence.candidates;
  if (request.request.provisional) gather(behind, std::max(behind, watched));
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
  transformer_.EmbedMixed(mixed_rows_, hidden_.data());
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
    MeasureKept(masked_rows_only);
    begin += count;
    count = 0;
    sources_.clear();
  };
  for (Sequence& sequence : sequences_) {
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
    const auto add = [&](std::int64_t total, std::int64_t before = 0) {
      for (std::int64_t first = 0; first < total; first += kRowBlock) {
        source.rows = std::min(kRowBlock, total - first);
        if (count + source.rows > kRowBlock) flush();
        Watch(sequence, before + first, count, source);
        sources_.push_back(source);
        count += source.rows;
      }
    };
    if (masked_rows_only) {
      add(sequence.candidates);
      // Which move no border of the candidates, nor provisional ones any of those that are watched.
      add(sequence.watched, sequence.candidates);
      add(sequence.queries - sequence.candidates - sequence.watched,
          sequence.candidates + sequence.watched);
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
        sequence.first_row + sequence.rows - sequence.request->canvas.length();
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
    TokenSampler& sampler = *samplers.emplace_back(
        std::make_unique<TokenSampler>(sequence.request->canvas, transformer_.config().mask_id,
                                       sequence.queries, transformer_.config().vocab_rows));
    for (std::int64_t i = 0; i < sequence.queries; ++i) {
      const std::int64_t row = sequence.first_query + i;
      // The noise is that of the position which is decided.
      rows.push_back(sampler.Row(i, normed_.data() + row * width,
                                 query_positions_[static_cast<std::size_t>(row)] + shift()));
    }
  }
  transformer_.Project(rows);

  std::vector<std::optional<Prediction>> predictions(static_cast<std::size_t>(queries));
  std::vector<StepEvent> events;
  for (std::size_t s = 0; s < sequences_.size(); ++s) {
    const Sequence& sequence = sequences_[s];
    const std::span mine = std::span(predictions)
                               .subspan(static_cast<std::size_t>(sequence.first_query),
                                        static_cast<std::size_t>(sequence.queries));
    const std::span<const std::int64_t> answers = QueryAnswers(sequence);
    transformer_.pool().ParallelFor(sequence.queries, [&](std::int64_t row, int) {
      const auto index = static_cast<std::size_t>(row);
      mine[index] = samplers[s]->Predict(row, answers[index]);
    });
    events.push_back(Commit(sequence, *samplers[s], mine));
  }
  return events;
}

StepEvent Decoder::Commit(const Sequence& sequence, const TokenSampler& sampler,
                          std::span<const std::optional<Prediction>> predicted) {
  Request& request = *sequence.request;
  Canvas& canvas = request.canvas;
  StepEvent event;
  event.request = sequence.id;
  event.step = canvas.step();
  event.rows = sequence.rows;
  const std::span<const std::int64_t> positions = QueryAnswers(sequence);
  const auto candidates = static_cast<std::size_t>(sequence.candidates);
  std::vector<Prediction> predictions;
  for (std::size_t i = 0; i < predicted.size(); ++i) {
    if (predicted[i].has_value()) {
      predictions.push_back(*predicted[i]);
    } else if (i < candidates + static_cast<std::size_t>(sequence.watched)) {
      request.failed = true;
      event.status = MakeError(
          absl::StatusCode::kDataLoss, "NOT_FINITE",
          absl::StrFormat("step %d: answer position %d: expected finite logits, found NaN or "
                          "infinity",
                          event.step, positions[i]));
      return event;
    }
  }
  const std::int64_t length = canvas.length();
  const double certainty = EndCertainty(sequence, sampler);
  event.kept_mass = KeptMass(sequence);
  if (!canvas.GrowInstead(certainty)) {
    event.committed = canvas.Commit(std::span(predictions).first(candidates), certainty);
    UpdateMixes(sequence, sampler);
    request.refresh.StepTaken(event.kept_mass.value_or(0));
  }
  event.grown = canvas.length() - length;
  event.finish_reason = canvas.finish_reason();
  event.refresh_due = !canvas.finished() && request.refresh.due();
  if (!request.request.provisional) return event;
  std::ranges::copy_if(predictions, std::back_inserter(event.provisional),
                       [&](const Prediction& p) { return canvas.masked(p.position); });
  std::ranges::sort(event.provisional, {}, &Prediction::position);  // watched ones came first
  return event;
}

}  // namespace maskkv::engine
