// SPDX-License-Identifier: Apache-2.0
//
// One step of the batch: rows, layers, predictions, commits.
#include <algorithm>
#include <iterator>
#include <limits>
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
  for (const bool whole : {true, false}) {
    for (auto& [id, request] : requests_) {
      const std::int64_t rows = std::ssize(request.request.prompt) + request.canvas.length() +
                                std::ssize(request.request.suffix);
      const ResponseCache* const cache = request.response_cache.get();
      const bool next_is_whole = cache == nullptr || cache->NextIsWhole(rows);
      if (!request.running() || next_is_whole != whole) continue;
      AddRows({.id = id, .request = &request});
      if (request.request.params.guided()) {
        AddRows({.id = id, .request = &request, .unconditional = true});
      }
    }
    if (whole) whole_rows_ = static_cast<std::int64_t>(tokens_.size());
  }
  for (const Sequence& sequence : sequences_) {
    if (sequence.first_row >= whole_rows_) break;
    transformer::AddRopeRun({sequence.rows, sequence.request->rope.get()}, rotations_);
  }
}

void Decoder::AddRows(Sequence sequence) {
  const Request& request = *sequence.request;
  sequence.first_row = static_cast<std::int64_t>(tokens_.size());
  const std::vector<std::int32_t>& prompt = request.request.prompt;
  const std::vector<std::int32_t>& suffix = request.request.suffix;
  const std::span<const std::int32_t> answer = request.canvas.tokens();
  if (sequence.unconditional) {
    tokens_.insert(tokens_.end(), prompt.size(), transformer_.config().mask_id);
  } else {
    tokens_.insert(tokens_.end(), prompt.begin(), prompt.end());
  }
  tokens_.insert(tokens_.end(), answer.begin(), answer.end());
  tokens_.insert(tokens_.end(), suffix.begin(), suffix.end());
  const auto start = static_cast<std::int32_t>(request.request.prompt_tokens);
  const auto end = start + static_cast<std::int32_t>(answer.size() + suffix.size());
  for (std::int32_t i = start - static_cast<std::int32_t>(prompt.size()); i < end; ++i) {
    positions_.push_back(i);
  }
  sequence.rows = static_cast<std::int64_t>(tokens_.size()) - sequence.first_row;
  GatherQueries(sequence);
  GatherMixes(sequence);
  sequences_.push_back(sequence);
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

std::int64_t Decoder::AnswerRow(const Sequence& sequence, std::int64_t answer) {
  return sequence.first_row + std::ssize(sequence.request->request.prompt) + answer;
}

void Decoder::BeginFeatures() {
  features_.Begin({.hidden = hidden_.data(),
                   .pairs = kv_.data(),
                   .positions = positions_.data(),
                   .whole = whole_rows_,
                   .total = std::ssize(tokens_)});
  for (const Sequence& sequence : sequences_) {
    features_.Add({.cache = sequence.request->response_cache.get(),
                   .rope = sequence.request->rope.get(),
                   .first_row = sequence.first_row,
                   .rows = sequence.rows,
                   .first_answer = AnswerRow(sequence, -shift()),
                   .answers = QueryAnswers(sequence)});
  }
}

void Decoder::RunLayers() {
  const auto rows = static_cast<std::int64_t>(tokens_.size());
  const std::int64_t layers = transformer_.config().layers;
  hidden_.Resize(rows * transformer_.hidden());
  kv_.Resize(rows * 2 * transformer_.kv_width());
  queries_.Resize(rows * transformer_.query_width());
  transformer_.Embed(tokens_, hidden_.data());
  transformer_.EmbedMixed(mixed_rows_, hidden_.data());
  BeginFeatures();
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const bool last = layer + 1 == layers;
    // Only where the same rows go on, their queries come from the same product.
    const bool together = !last && !features_.in_use();
    if (together) {
      transformer_.ProjectAll(layer, hidden_.data(), whole_rows_, positions_.data(), rotations_,
                              kv_.data(), queries_.data());
    } else {
      transformer_.ProjectKeysValues(layer, hidden_.data(), whole_rows_, positions_.data(),
                                     rotations_, kv_.data());
    }
    if (features_.in_use()) {
      features_.Gather(layer, last);
    } else if (last) {
      // Only what predicts masks of the current blocks reaches the vocabulary head.
      GatherMaskedRows();
    }
    Advance(layer, last);
    if (features_.in_use()) features_.Scatter(layer);
  }
  if (features_.in_use()) GatherMaskedRows();
}

void Decoder::Advance(std::int64_t layer, bool masked_rows_only) {
  float* hidden = hidden_.data();
  const std::int32_t* positions = positions_.data();
  if (features_.in_use()) {
    hidden = features_.hidden();
    positions = features_.positions();
  } else if (masked_rows_only) {
    hidden = query_hidden_.data();
    positions = query_positions_.data();
  }
  const std::int64_t ld = 2 * transformer_.kv_width();
  std::int64_t begin = 0, count = 0;
  sources_.clear();
  const auto flush = [&] {
    if (count == 0) return;
    float* const rows = hidden + begin * transformer_.hidden();
    if (masked_rows_only || features_.in_use()) {
      transformer_.Advance(layer, rows, count, positions + begin, sources_, nullptr,
                           features_.Outputs(begin));
    } else {
      transformer_.AdvanceProjected(layer, queries_.data() + begin * transformer_.query_width(),
                                    rows, count, sources_);
    }
    MeasureKept(masked_rows_only);
    begin += count;
    count = 0;
    sources_.clear();
  };
  for (Sequence& sequence : sequences_) {
    const KvView* cache = sequence.cache();
    const ResponseCache* const features = sequence.request->response_cache.get();
    const float* keys = features == nullptr ? kv_.data() + sequence.first_row * ld
                                            : features->layer(layer).pairs.data();
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
    if (features != nullptr) {
      add(std::ssize(features->layer(layer).chosen));
    } else if (masked_rows_only) {
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
    for (const std::int64_t index : QueryAnswers(sequence)) {
      out = std::copy_n(hidden_.data() + AnswerRow(sequence, index - shift()) * width, width, out);
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
    if (!sequence.unconditional) {
      samplers.push_back(
          std::make_unique<TokenSampler>(sequence.request->canvas, transformer_.config().mask_id,
                                         sequence.queries, transformer_.config().vocab_rows));
    }
    TokenSampler& sampler = *samplers.back();
    for (std::int64_t i = 0; i < sequence.queries; ++i) {
      const std::int64_t row = sequence.first_query + i;
      const float* const hidden = normed_.data() + row * width;
      // The noise is that of the position which is decided.
      rows.push_back(
          sequence.unconditional
              ? sampler.UnconditionalRow(i, hidden)
              : sampler.Row(i, hidden, query_positions_[static_cast<std::size_t>(row)] + shift()));
    }
  }
  transformer_.Project(rows);

  std::vector<std::optional<Prediction>> predictions(static_cast<std::size_t>(queries));
  std::vector<StepEvent> events;
  for (const Sequence& sequence : sequences_) {
    if (sequence.unconditional) continue;
    TokenSampler& sampler = *samplers[events.size()];
    const std::span mine = std::span(predictions)
                               .subspan(static_cast<std::size_t>(sequence.first_query),
                                        static_cast<std::size_t>(sequence.queries));
    const std::span<const std::int64_t> answers = QueryAnswers(sequence);
    transformer_.pool().ParallelFor(sequence.queries, [&](std::int64_t row, int) {
      const auto index = static_cast<std::size_t>(row);
      mine[index] = sampler.Predict(row, answers[index]);
    });
    const bool guided = sequence.request->request.params.guided();
    events.push_back(Commit(sequence, sampler, (guided ? 2 : 1) * sequence.rows, mine));
  }
  std::ranges::sort(events, {}, &StepEvent::request);
  return events;
}

StepEvent Decoder::Commit(const Sequence& sequence, const TokenSampler& sampler, std::int64_t rows,
                          std::span<const std::optional<Prediction>> predicted) {
  Request& request = *sequence.request;
  Canvas& canvas = request.canvas;
  StepEvent event;
  event.request = sequence.id;
  event.step = canvas.step();
  event.rows = rows;
  if (request.response_cache != nullptr) {
    event.rows = std::ssize(request.response_cache->layer(0).chosen);
    event.reused_rows = rows - event.rows;
    event.response_cache_bytes = request.response_cache->bytes();
  }
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
    request.refresh.StepTaken(event.kept_mass.value_or(std::numeric_limits<double>::quiet_NaN()));
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
