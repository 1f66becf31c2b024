// SPDX-License-Identifier: Apache-2.0
#include "core/engine/token_sampler.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "core/decoding/guidance.h"
#include "kernels/sample/philox.h"

namespace maskkv::engine {
namespace {

std::vector<std::int32_t> ForbiddenIds(const GenerateParams& params, std::int32_t mask_id) {
  std::vector<std::int32_t> ids{mask_id};
  if (params.suppress_eos && params.stop_ids.front() != mask_id) {
    ids.push_back(params.stop_ids.front());
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace

// Reduces nothing: lays a row's tiles side by side.
class TokenSampler::RowCollector : public kernels::LogitReducer {
 public:
  explicit RowCollector(float* logits) : logits_(logits) {}

  std::size_t state_bytes() const override { return sizeof(std::uint64_t); }
  void Init(void* state) const override { std::memset(state, 0, state_bytes()); }
  void Consume(std::int64_t, std::int32_t first_id, std::span<float> logits, void*) const override {
    std::copy(logits.begin(), logits.end(), logits_ + first_id);
  }
  void Merge(const void*, void*) const override {}

  std::uint64_t result = 0;   // what the head writes for want of a state
  std::int64_t position = 0;  // absolute, of the row's prediction

 private:
  float* const logits_;
};

TokenSampler::TokenSampler(const Canvas& canvas, std::int32_t mask_id, std::int64_t rows,
                           std::int64_t vocabulary)
    : canvas_(canvas),
      forbidden_(ForbiddenIds(canvas.params(), mask_id)),
      rows_(rows),
      vocabulary_(vocabulary),
      whole_rows_(canvas.params().guided() || canvas.watches_end() ||
                  decoding::NeedsWholeRows(canvas.params().rule)),
      argmax_(forbidden_),
      gumbel_(canvas.params().seed, static_cast<std::uint32_t>(canvas.step()),
              static_cast<float>(canvas.params().temperature), forbidden_) {
  if (canvas.constraint() != nullptr) constrained_.emplace(*canvas.constraint(), vocabulary);
  if (!whole_rows_) {
    choices_.resize(static_cast<std::size_t>(rows));
    return;
  }
  row_choices_.resize(static_cast<std::size_t>(rows));
  const std::int64_t collected = canvas.params().guided() ? 2 * rows : rows;
  logits_.resize(static_cast<std::size_t>(collected * vocabulary));
  for (std::int64_t row = 0; row < collected; ++row) {
    collectors_.push_back(std::make_unique<RowCollector>(logits_.data() + row * vocabulary));
  }
}

TokenSampler::~TokenSampler() = default;

kernels::HeadRow TokenSampler::Row(std::int64_t row, const float* hidden, std::int64_t position) {
  const auto index = static_cast<std::size_t>(row);
  const kernels::LogitReducer* reducer = &gumbel_;
  void* result = nullptr;
  if (whole_rows_) {
    RowCollector& collector = *collectors_[index];
    collector.position = position;
    reducer = &collector;
    result = &collector.result;
  } else {
    if (canvas_.params().temperature == 0) reducer = &argmax_;
    result = &choices_[index];
  }
  if (constrained_) reducer = &constrained_->Of(position - canvas_.first_position(), *reducer);
  return {hidden, reducer, position, result};
}

kernels::HeadRow TokenSampler::UnconditionalRow(std::int64_t row, const float* hidden) {
  RowCollector& collector = *collectors_[static_cast<std::size_t>(rows_ + row)];
  return {hidden, &collector, 0, &collector.result};
}

std::optional<Prediction> TokenSampler::PredictStreamed(std::int64_t row,
                                                        std::int64_t answer) const {
  const kernels::TokenChoice& choice = choices_[static_cast<std::size_t>(row)];
  if (!choice.valid()) return std::nullopt;
  Prediction prediction{answer, choice.token, static_cast<float>(choice.confidence()),
                        static_cast<float>(choice.log_confidence())};
  prediction.score = prediction.confidence;
  return prediction;
}

decoding::RowChoice TokenSampler::Choose(std::int64_t row) const {
  const GenerateParams& params = canvas_.params();
  const bool mixed = decoding::IsMixed(params.rule.rule);
  const std::int32_t watched = canvas_.watches_end() ? params.stop_ids.front() : -1;
  const decoding::RowSampling sampling{.rule = params.rule,
                                       .temperature = params.temperature,
                                       .seed = params.seed,
                                       .step = static_cast<std::uint32_t>(canvas_.step()),
                                       .forbidden = forbidden_,
                                       .keep_best = mixed ? params.rule.mix_top : 0,
                                       .watched = watched};
  const auto position =
      static_cast<std::uint32_t>(collectors_[static_cast<std::size_t>(row)]->position);
  const auto logits_of = [&](std::int64_t collected) {
    return std::span(logits_).subspan(static_cast<std::size_t>(collected * vocabulary_),
                                      static_cast<std::size_t>(vocabulary_));
  };
  const std::span<const float> logits = logits_of(row);
  if (!params.guided()) return decoding::ChooseFromRow(sampling, position, logits);
  std::vector<float> guided(logits.begin(), logits.end());
  decoding::Guide(logits_of(rows_ + row), params.cfg_scale, guided);
  return decoding::ChooseFromRow(sampling, position, guided);
}

std::optional<Prediction> TokenSampler::PredictWhole(std::int64_t row, std::int64_t answer) {
  decoding::RowChoice& choice = row_choices_[static_cast<std::size_t>(row)];
  choice = Choose(row);
  if (!choice.valid) return std::nullopt;
  return Prediction{answer, choice.token, static_cast<float>(choice.confidence),
                    static_cast<float>(choice.log_probability), static_cast<float>(choice.score)};
}

std::optional<Prediction> TokenSampler::Predict(std::int64_t row, std::int64_t answer) {
  const GenerateParams& params = canvas_.params();
  std::optional<Prediction> prediction =
      whole_rows_ ? PredictWhole(row, answer) : PredictStreamed(row, answer);
  if (prediction.has_value() && params.rule.rule == decoding::Rule::kRandom) {
    prediction->score = kernels::Uniform(
        params.seed, static_cast<std::uint32_t>(canvas_.first_position() + answer),
        static_cast<std::uint32_t>(canvas_.step()), 0, kernels::PhiloxStream::kRandomConfidence);
  }
  return prediction;
}

}  // namespace maskkv::engine
