// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/kernels/attention/attention_problem.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <limits>
#include <sstream>
#include <utility>

#include "kernels/attention/attention_ref.h"

namespace maskkv::kernels {
namespace {

constexpr double kEps = 0x1p-24;
constexpr float kGuard = 12345.0F;

std::size_t At(std::int64_t index) { return static_cast<std::size_t>(index); }

std::vector<float> Normal(std::int64_t count, float deviation, std::mt19937_64& random) {
  std::normal_distribution<float> normal(0.0F, deviation);
  std::vector<float> values(At(count));
  for (float& value : values) value = normal(random);
  return values;
}

std::vector<Bf16> Narrow(const std::vector<float>& values) {
  std::vector<Bf16> narrow(values.size());
  std::transform(values.begin(), values.end(), narrow.begin(), ToBf16);
  return narrow;
}

Int8Rows Quantise(const std::vector<float>& values, std::int64_t width) {
  Int8Rows narrow;
  narrow.rows.resize(values.size());
  for (std::int64_t at = 0; at < std::ssize(values); at += width) {
    narrow.scales.push_back(QuantiseCachedRow(values.data() + at, width, narrow.rows.data() + at));
  }
  return narrow;
}

}  // namespace

std::string ProblemSpec::ToString() const {
  std::ostringstream text;
  text << (shape.products == DType::kBF16 ? "bf16 products, heads " : "heads ") << shape.heads
       << "/" << shape.kv_heads << " x " << shape.head_dim << ", queries " << query_rows << ", own "
       << own_rows << ", cached";
  for (const std::int64_t count : pairs) text << ' ' << count;
  text << ' ' << Name(cached_dtype) << ", query scale " << query_scale;
  return text.str();
}

AttentionProblem::AttentionProblem(ProblemSpec spec, std::uint64_t seed) : spec_(std::move(spec)) {
  std::mt19937_64 random(seed);
  const AttentionShape& shape = spec_.shape;
  ldq = shape.heads * shape.head_dim + 3;
  ldkv = shape.kv_heads * shape.head_dim + 5;
  ldo = shape.heads * shape.head_dim + 2;
  q = Normal(spec_.query_rows * ldq, spec_.query_scale, random);
  own_k = Normal(spec_.own_rows * ldkv, 1.0F, random);
  own_v = Normal(spec_.own_rows * ldkv, 1.0F, random);
  for (const std::int64_t count : spec_.pairs) {
    cached_k.push_back(Normal(count * shape.head_dim, 1.0F, random));
    cached_v.push_back(Normal(count * shape.head_dim, 1.0F, random));
    cached_k16.push_back(Narrow(cached_k.back()));
    cached_v16.push_back(Narrow(cached_v.back()));
    cached_k8.push_back(Quantise(cached_k.back(), shape.head_dim));
    cached_v8.push_back(Quantise(cached_v.back(), shape.head_dim));
  }
}

void AttentionProblem::RoundInputs() {
  const auto round = [](std::vector<float>& values) {
    RoundToBf16InPlace(values.data(), std::ssize(values));
  };
  for (std::vector<float>* values : {&q, &own_k, &own_v}) round(*values);
  std::ranges::for_each(cached_k, round);
  std::ranges::for_each(cached_v, round);
}

AttentionRequest AttentionProblem::Request(AttentionOutput& output) {
  if (spec_.shape.products == DType::kBF16) RoundInputs();
  output.out.assign(At(spec_.query_rows * ldo), kGuard);
  output.lse.assign(At(spec_.query_rows * spec_.shape.heads), kGuard);
  heads_.clear();
  for (std::size_t g = 0; g < spec_.pairs.size(); ++g) {
    if (spec_.cached_dtype == DType::kF32) {
      heads_.push_back({cached_k[g].data(), cached_v[g].data(), spec_.pairs[g]});
    } else if (spec_.cached_dtype == DType::kBF16) {
      heads_.push_back({cached_k16[g].data(), cached_v16[g].data(), spec_.pairs[g]});
    } else {
      heads_.push_back({cached_k8[g].rows.data(), cached_v8[g].rows.data(), spec_.pairs[g],
                        cached_k8[g].scales.data(), cached_v8[g].scales.data()});
    }
  }
  return {.q = q.data(),
          .ldq = ldq,
          .query_rows = spec_.query_rows,
          .k = own_k.data(),
          .v = own_v.data(),
          .ldkv = ldkv,
          .own_rows = spec_.own_rows,
          .cached = heads_,
          .cached_dtype = spec_.cached_dtype,
          .out = output.out.data(),
          .ldo = ldo,
          .lse = output.lse.data()};
}

std::int64_t AttentionProblem::Keys(std::int64_t kv_head) const {
  return spec_.own_rows + (spec_.pairs.empty() ? 0 : spec_.pairs[At(kv_head)]);
}

double AttentionProblem::Key(std::int64_t kv_head, std::int64_t j, std::int64_t c) const {
  const std::int64_t cached = Keys(kv_head) - spec_.own_rows;
  if (j >= cached) return own_k[At((j - cached) * ldkv + kv_head * spec_.shape.head_dim + c)];
  const std::size_t at = At(j * spec_.shape.head_dim + c);
  if (spec_.cached_dtype == DType::kInt8) {
    const float key = cached_k8[At(kv_head)].At(j, spec_.shape.head_dim, c);
    return spec_.shape.products == DType::kBF16 ? ToFloat(ToBf16(key)) : key;
  }
  return spec_.cached_dtype == DType::kBF16 ? ToFloat(cached_k16[At(kv_head)][at])
                                            : cached_k[At(kv_head)][at];
}

double AttentionProblem::MaxAbsScore(std::int64_t head, std::int64_t row) const {
  const AttentionShape& shape = spec_.shape;
  const std::int64_t kv_head = head / (shape.heads / shape.kv_heads);
  double largest = 0;
  for (std::int64_t j = 0; j < Keys(kv_head); ++j) {
    double sum = 0;
    for (std::int64_t c = 0; c < shape.head_dim; ++c) {
      sum += std::abs(q[At(row * ldq + head * shape.head_dim + c)] * Key(kv_head, j, c));
    }
    largest = std::max(largest, sum / std::sqrt(static_cast<double>(shape.head_dim)));
  }
  return largest;
}

void AttentionProblem::MakeValuesPositive() {
  for (float& value : own_v) value = std::abs(value);
  for (std::vector<float>& head : cached_v) {
    for (float& value : head) value = std::abs(value);
  }
  for (std::vector<Bf16>& head : cached_v16) {
    for (Bf16& value : head) value.bits &= 0x7fff;
  }
  for (Int8Rows& head : cached_v8) {
    for (std::int8_t& value : head.rows) value = static_cast<std::int8_t>(std::abs(value));
  }
}

AttentionBound BoundFor(double max_abs_score, const AttentionShape& shape, std::int64_t keys) {
  const bool bf16 = shape.products == DType::kBF16;
  const double d = static_cast<double>(shape.head_dim) + (bf16 ? 2 : 0);
  const auto n = static_cast<double>(keys);
  const double tiles = n / static_cast<double>(kKeyTile) + 1;
  // Terms of second order: the bounds are small, a tenth covers their products.
  const double weight = 1.1 * ((d + 8) * max_abs_score + 4 + 5 * tiles) * kEps;
  return {.weight = weight,
          .out = 2 * weight + 2.2 * (n + tiles + 1) * kEps + (bf16 ? 0x1p-8 : 0),
          .lse = weight + 1.1 * (n + tiles + 4 * (max_abs_score + std::log(n + 1) + 1)) * kEps};
}

namespace {

// The worst element so far, by error over bound.
struct Worst {
  double ratio = 0;
  std::string line;

  void Look(const char* what, std::int64_t head, std::int64_t row, std::int64_t c, double got,
            double want, double bound) {
    if (got == want) return;  // equal infinities too
    const double here =
        std::isnan(got) ? std::numeric_limits<double>::infinity() : std::abs(got - want) / bound;
    if (here <= ratio) return;
    ratio = here;
    std::ostringstream text;
    text.precision(9);
    text << what << " head " << head << " row " << row << " dimension " << c << ": got " << got
         << ", twin " << want << ", bound " << bound << ", error/bound " << here;
    line = text.str();
  }
};

AttentionOutput RunTwin(AttentionProblem& problem) {
  AttentionOutput output;
  ref::Attention(problem.spec().shape, problem.Request(output));
  return output;
}

}  // namespace

std::string CompareWithTwin(AttentionProblem& problem, const AttentionOutput& got) {
  const AttentionShape& shape = problem.spec().shape;
  const std::int64_t rows = problem.spec().query_rows;
  const AttentionOutput want = RunTwin(problem);
  problem.MakeValuesPositive();
  const AttentionOutput magnitude = RunTwin(problem);  // sum_j p_j |v_j|
  Worst worst;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      const std::int64_t keys = problem.Keys(h / (shape.heads / shape.kv_heads));
      const AttentionBound bound = BoundFor(problem.MaxAbsScore(h, i), shape, keys);
      const std::size_t lse_at = At(h * rows + i);
      worst.Look("lse", h, i, 0, got.lse[lse_at], want.lse[lse_at], bound.lse);
      for (std::int64_t c = 0; c < shape.head_dim; ++c) {
        const std::size_t at = At(i * problem.ldo + h * shape.head_dim + c);
        // The values of tests are below 100; a denormal result is off by one denormal at most.
        const double floor = static_cast<double>(keys) * 100 * 0x1p-126 + 0x1p-148;
        worst.Look("out", h, i, c, got.out[at], want.out[at],
                   bound.out * magnitude.out[at] + floor);
      }
    }
    for (std::int64_t c = shape.heads * shape.head_dim; c < problem.ldo; ++c) {
      const std::size_t at = At(i * problem.ldo + c);
      worst.Look("gap after", 0, i, c, got.out[at], kGuard, 0);
    }
  }
  return worst.ratio <= 1 ? "" : worst.line;
}

}  // namespace maskkv::kernels
