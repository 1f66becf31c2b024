// SPDX-License-Identifier: Apache-2.0
#include "core/decoding/row_choice.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/sample/gumbel.h"

namespace maskkv::decoding {
namespace {

constexpr float kRemoved = -std::numeric_limits<float>::infinity();

// An id and its value; larger values first, ties to the lower id.
struct Ranked {
  float value = 0;
  std::int32_t id = 0;
};

bool Before(const Ranked& a, const Ranked& b) {
  return a.value > b.value || (a.value == b.value && a.id < b.id);
}

// The row's ids by descending value, found one after the other: a heap, so that only as many are
// sorted as are looked at.
class Descending {
 public:
  explicit Descending(std::span<const float> values) {
    heap_.reserve(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (values[i] != kRemoved) heap_.push_back({values[i], static_cast<std::int32_t>(i)});
    }
    std::make_heap(heap_.begin(), heap_.end(), Later);
  }

  bool empty() const { return heap_.empty(); }

  Ranked Next() {
    std::pop_heap(heap_.begin(), heap_.end(), Later);
    const Ranked next = heap_.back();
    heap_.pop_back();
    return next;
  }

 private:
  static bool Later(const Ranked& a, const Ranked& b) { return Before(b, a); }

  std::vector<Ranked> heap_;
};

// Softmax of values / scale: its probabilities one by one.
class Softmax {
 public:
  Softmax(std::span<const float> values, double scale) : scale_(scale) {
    max_ = static_cast<double>(*std::max_element(values.begin(), values.end()));
    for (const float value : values) sum_ += std::exp(Exponent(value));
  }

  double LogOf(float value) const { return Exponent(value) - std::log(sum_); }
  double Of(float value) const { return std::exp(Exponent(value)) / sum_; }

 private:
  double Exponent(float value) const { return (static_cast<double>(value) - max_) / scale_; }

  const double scale_;
  double max_ = 0;
  double sum_ = 0;
};

// Removes what top-p and top-k leave out. scale: the temperature, or 1.
void Filter(const RuleParams& params, double scale, std::span<float> values) {
  if (params.top_p < 1) {
    const Softmax softmax(values, scale);
    Descending descending(values);
    std::vector<Ranked> kept;
    // An id stays while those before it do not exceed top_p: the first always does.
    for (double before = 0; !descending.empty() && before <= params.top_p;) {
      kept.push_back(descending.Next());
      before += softmax.Of(kept.back().value);
    }
    std::fill(values.begin(), values.end(), kRemoved);
    for (const Ranked& ranked : kept) values[static_cast<std::size_t>(ranked.id)] = ranked.value;
  }
  if (params.top_k > 0) {
    Descending descending(values);
    float least = kRemoved;
    for (std::int64_t i = 0; i < params.top_k && !descending.empty(); ++i) {
      least = descending.Next().value;
    }
    // As published: all that equal the last of the k stay too.
    for (float& value : values) {
      if (value < least) value = kRemoved;
    }
  }
}

std::int32_t TokenOf(const RowSampling& sampling, std::uint32_t position,
                     std::span<const float> values) {
  if (sampling.temperature == 0) {
    return static_cast<std::int32_t>(std::max_element(values.begin(), values.end()) -
                                     values.begin());
  }
  std::vector<float> noisy(values.size());
  kernels::GumbelNoise(sampling.seed, position, sampling.step, 0, noisy);
  const auto temperature = static_cast<float>(sampling.temperature);
  for (std::size_t i = 0; i < values.size(); ++i) noisy[i] = values[i] + temperature * noisy[i];
  return static_cast<std::int32_t>(std::max_element(noisy.begin(), noisy.end()) - noisy.begin());
}

double ScoreOf(const RuleParams& params, std::int32_t token, std::span<const float> values,
               double scale) {
  const Softmax softmax(values, scale);
  if (params.rule == Rule::kTopkMargin) {
    Descending descending(values);
    const double first = softmax.Of(descending.Next().value);
    return descending.empty() ? first : first - softmax.Of(descending.Next().value);
  }
  if (params.rule == Rule::kEntropy) {
    double sum = 0;
    for (const float value : values) {
      const double p = softmax.Of(value);
      if (p > 0) sum += p * softmax.LogOf(value);
    }
    return sum;
  }
  return softmax.Of(values[static_cast<std::size_t>(token)]);
}

}  // namespace

RowChoice ChooseFromRow(const RowSampling& sampling, std::uint32_t position,
                        std::span<const float> logits) {
  RowChoice choice;
  std::vector<float> allowed(logits.begin(), logits.end());
  for (const std::int32_t id : sampling.forbidden) {
    if (static_cast<std::size_t>(id) < allowed.size()) {
      allowed[static_cast<std::size_t>(id)] = kRemoved;
    }
  }
  bool any = false;
  for (const float value : allowed) {
    if (std::isnan(value) || value == std::numeric_limits<float>::infinity()) return choice;
    any = any || value != kRemoved;
  }
  if (!any) return choice;

  const double scale = sampling.temperature > 0 ? sampling.temperature : 1;
  std::vector<float> filtered = allowed;
  Filter(sampling.rule, scale, filtered);
  const Softmax raw(allowed, 1);
  choice.valid = true;
  choice.token = TokenOf(sampling, position, filtered);
  const float logit = allowed[static_cast<std::size_t>(choice.token)];
  choice.confidence = raw.Of(logit);
  choice.log_probability = raw.LogOf(logit);
  choice.score = IsFiltered(sampling.rule) ? ScoreOf(sampling.rule, choice.token, filtered, scale)
                                           : ScoreOf(sampling.rule, choice.token, allowed, 1);
  if (sampling.watched >= 0) {
    choice.watched = raw.Of(allowed[static_cast<std::size_t>(sampling.watched)]);
  }
  if (sampling.keep_best > 0) {
    Descending descending(allowed);
    while (!descending.empty() && std::ssize(choice.best) < sampling.keep_best) {
      const Ranked ranked = descending.Next();
      choice.best.push_back({ranked.id, static_cast<float>(raw.Of(ranked.value))});
    }
  }
  return choice;
}

bool NeedsWholeRows(const RuleParams& params) {
  if (params.top_p < 1 || params.top_k > 0) return true;
  switch (params.rule) {
    case Rule::kRandom:
    case Rule::kOrigin:
      return false;  // no score of the model's
    case Rule::kTopkMargin:
    case Rule::kEntropy:
    case Rule::kRemix:
      return true;
    default:
      return IsFiltered(params);
  }
}

}  // namespace maskkv::decoding
