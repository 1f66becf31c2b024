// SPDX-License-Identifier: Apache-2.0
#include "core/engine/quality.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "core/engine/decode.h"
#include "core/engine/prefill.h"
#include "core/engine/prompt.h"

namespace maskkv::engine {
namespace {

// What the softmax of a row of logits is made of, one id left out.
struct Softmax {
  double max = -std::numeric_limits<double>::infinity();
  double log_sum = 0;  // of exp(logit - max)
  std::int64_t best = -1;
};

Softmax SoftmaxOf(std::span<const float> logits, std::int32_t forbidden) {
  Softmax result;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::cmp_equal(i, forbidden) || !(logits[i] > result.max)) continue;
    result.max = logits[i];
    result.best = static_cast<std::int64_t>(i);
  }
  double sum = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (!std::cmp_equal(i, forbidden)) sum += std::exp(logits[i] - result.max);
  }
  result.log_sum = std::log(sum);
  return result;
}

DecodeRequest RequestFor(const model::ModelConfig& config, std::span<const std::int32_t> prompt,
                         const GenerateParams& params, std::shared_ptr<const KvView> entry) {
  DecodeRequest request;
  request.prompt = RecomputedTail(config, prompt);
  request.prompt_tokens = static_cast<std::int64_t>(prompt.size());
  request.params = params;
  request.rope_scale = entry->shape().rope_scale;
  request.cache = std::move(entry);
  return request;
}

}  // namespace

LogitComparison CompareLogits(std::span<const float> reference, std::span<const float> other,
                              std::int32_t forbidden) {
  const Softmax p = SoftmaxOf(reference, forbidden), q = SoftmaxOf(other, forbidden);
  MASKKV_CHECK(reference.size() == other.size() && p.best >= 0, "two rows of the same vocabulary");
  double divergence = 0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    if (std::cmp_equal(i, forbidden)) continue;
    const double log_p = reference[i] - p.max - p.log_sum;
    const double log_q = other[i] - q.max - q.log_sum;
    divergence += std::exp(log_p) * (log_p - log_q);
  }
  // Rounding can make it a hair negative; NaN stays what it is.
  return {divergence < 0 ? 0 : divergence, p.best == q.best};
}

QualityMeter::QualityMeter(transformer::Transformer& transformer, std::vector<EvictionPlan> plans,
                           const GenerateParams& params, kernels::DType kv_dtype)
    : transformer_(transformer),
      plans_(std::move(plans)),
      params_(params),
      kv_dtype_(kv_dtype),
      forward_(transformer),
      sums_(plans_.size()) {
  MASKKV_CHECK(params.temperature == 0, "the reference is greedy");
}

absl::StatusOr<QualityMeter::Entries> QualityMeter::Prefill(std::span<const std::int32_t> prompt,
                                                            double rope_scale,
                                                            std::vector<Sum>& sums) const {
  const std::vector<Row> rows = PromptThenMasks(prompt, params_.gen_length, transformer_.config());
  PrefillForward forward;
  forward.rows = rows;
  forward.rope_scale = rope_scale;
  std::vector<std::shared_ptr<HeapKvEntry>> entries;
  std::vector<PrefillCut> cuts;
  EvictionPlan every;
  every.selection = Selection::kFull;
  for (std::size_t i = 0; i <= plans_.size(); ++i) {
    entries.push_back(std::make_shared<HeapKvEntry>());
    cuts.push_back({i == 0 ? every : plans_[i - 1], kv_dtype_, entries.back().get()});
  }
  MASKKV_ASSIGN_OR_RETURN(const std::vector<PrefillResult> results,
                          Prefiller(transformer_).RunCuts(forward, cuts));
  for (std::size_t i = 0; i < plans_.size(); ++i) sums[i].kept_mass += results[i + 1].kept_mass();
  return Entries(entries.begin(), entries.end());
}

absl::Status QualityMeter::CompareSteps(std::span<const std::int32_t> prompt,
                                        const Entries& entries,
                                        const std::function<absl::Status()>& poll,
                                        std::vector<Sum>& sums, std::vector<std::int32_t>& answer) {
  const model::ModelConfig& config = transformer_.config();
  const auto vocabulary = static_cast<std::size_t>(config.vocab_rows);
  const std::vector<std::int32_t> tail = RecomputedTail(config, prompt);
  Decoder decoder(transformer_);
  MASKKV_ASSIGN_OR_RETURN(const RequestId id,
                          decoder.Add(RequestFor(config, prompt, params_, entries.front())));
  while (decoder.running() > 0) {
    const Canvas& canvas = *decoder.Find(id);
    CanvasOverEntry input{.entry = entries.front().get(),
                          .prompt = tail,
                          .prompt_tokens = static_cast<std::int64_t>(prompt.size()),
                          .canvas = canvas.tokens(),
                          .wanted = canvas.candidates()};
    const std::span<const float> logits = forward_.Run(input);
    const std::vector<float> reference(logits.begin(), logits.end());
    for (std::size_t i = 0; i < plans_.size(); ++i) {
      MASKKV_RETURN_IF_ERROR(poll());
      input.entry = entries[i + 1].get();
      const std::span<const float> other = forward_.Run(input);
      for (std::size_t row = 0; row < input.wanted.size(); ++row) {
        const LogitComparison compared =
            CompareLogits(std::span(reference).subspan(row * vocabulary, vocabulary),
                          other.subspan(row * vocabulary, vocabulary), config.mask_id);
        if (!std::isfinite(compared.divergence)) {
          return MakeError(
              absl::StatusCode::kDataLoss, "NOT_FINITE",
              absl::StrFormat("step %d: expected finite logits, found others", canvas.step()));
        }
        ++sums[i].predictions;
        sums[i].agreed += compared.agrees ? 1 : 0;
        sums[i].divergence += compared.divergence;
      }
    }
    for (const StepEvent& event : decoder.Step()) MASKKV_RETURN_IF_ERROR(event.status);
  }
  answer = decoder.Find(id)->Answer();
  return absl::OkStatus();
}

absl::Status QualityMeter::CompareAnswers(std::span<const std::int32_t> prompt,
                                          const Entries& entries,
                                          const std::function<absl::Status()>& poll,
                                          std::span<const std::int32_t> answer,
                                          std::vector<Sum>& sums) const {
  Decoder decoder(transformer_);
  std::vector<RequestId> ids;
  for (std::size_t i = 1; i < entries.size(); ++i) {
    MASKKV_ASSIGN_OR_RETURN(
        const RequestId id,
        decoder.Add(RequestFor(transformer_.config(), prompt, params_, entries[i])));
    ids.push_back(id);
  }
  while (decoder.running() > 0) {
    MASKKV_RETURN_IF_ERROR(poll());
    for (const StepEvent& event : decoder.Step()) MASKKV_RETURN_IF_ERROR(event.status);
  }
  for (std::size_t i = 0; i < ids.size(); ++i) {
    sums[i].equal_answers += std::ranges::equal(decoder.Find(ids[i])->Answer(), answer) ? 1 : 0;
  }
  return absl::OkStatus();
}

absl::Status QualityMeter::Add(std::span<const std::int32_t> prompt,
                               const std::function<absl::Status()>& poll, double rope_scale) {
  MASKKV_RETURN_IF_ERROR(ValidatePrompt(transformer_.config(), prompt, params_.gen_length,
                                        transformer_.max_positions()));
  std::vector<Sum> sums = sums_;
  std::vector<std::int32_t> answer;
  MASKKV_ASSIGN_OR_RETURN(const Entries entries, Prefill(prompt, rope_scale, sums));
  MASKKV_RETURN_IF_ERROR(CompareSteps(prompt, entries, poll, sums, answer));
  MASKKV_RETURN_IF_ERROR(CompareAnswers(prompt, entries, poll, answer, sums));
  sums_ = std::move(sums);
  ++prompts_;
  return absl::OkStatus();
}

std::vector<budget::QualityPoint> QualityMeter::Points() const {
  MASKKV_CHECK(prompts_ >= 1, "a curve has prompts");
  std::vector<budget::QualityPoint> points;
  for (std::size_t i = 0; i < plans_.size(); ++i) {
    const Sum& sum = sums_[i];
    const auto predictions = static_cast<double>(std::max<std::int64_t>(1, sum.predictions));
    points.push_back({.budget = plans_[i].budget,
                      .predictions = sum.predictions,
                      .agreed = sum.agreed,
                      .divergence = sum.divergence / predictions,
                      .equal_answers = sum.equal_answers,
                      .kept_mass = std::min(1.0, sum.kept_mass / static_cast<double>(prompts_))});
  }
  return points;
}

void QualityMeter::CheckInvariants() const {
  for (const Sum& sum : sums_) {
    MASKKV_CHECK(sum.agreed >= 0 && sum.agreed <= sum.predictions, "no more agree than were made");
    MASKKV_CHECK(sum.equal_answers >= 0 && sum.equal_answers <= prompts_, "an answer a prompt");
    MASKKV_CHECK(sum.divergence >= 0 && sum.kept_mass >= 0, "sums of what is not negative");
    MASKKV_CHECK(sum.predictions == sums_.front().predictions, "all plans see the same canvases");
  }
}

}  // namespace maskkv::engine
