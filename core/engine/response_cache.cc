// SPDX-License-Identifier: Apache-2.0
#include "core/engine/response_cache.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/check.h"
#include "core/transformer/row_ranges.h"
#include "kernels/norm/cosine.h"

namespace maskkv::engine {

ResponseCache::ResponseCache(const GenerateParams& params, const model::ModelConfig& config)
    : every_(params.response_every),
      share_(params.response_share),
      kv_width_(config.kv_heads * config.head_dim),
      hidden_(config.hidden),
      layers_(static_cast<std::size_t>(config.layers)) {
  MASKKV_CHECK(params.caches_response(), "a request that caches its response");
}

std::int64_t ResponseCache::BytesOf(const model::ModelConfig& config, std::int64_t rows) {
  const std::int64_t floats = 2 * config.kv_heads * config.head_dim + 2 * config.hidden;
  return config.layers * rows * floats * static_cast<std::int64_t>(sizeof(float));
}

std::int64_t ResponseCache::bytes() const {
  std::int64_t total = 0;
  for (const Layer& layer : layers_) {
    total += layer.pairs.capacity_bytes() + layer.attention.capacity_bytes() +
             layer.feed_forward.capacity_bytes();
  }
  return total;
}

void ResponseCache::Begin(std::int64_t rows) {
  whole_ = NextIsWhole(rows);
  if (rows != rows_) {
    forwards_ = 0;
    rows_ = rows;
    for (Layer& layer : layers_) {
      layer.pairs.Resize(rows * 2 * kv_width_);
      layer.attention.Resize(rows * hidden_);
      layer.feed_forward.Resize(rows * hidden_);
    }
  }
  ++forwards_;
}

void ResponseCache::KeepPairs(std::int64_t layer, const float* pairs) {
  Layer& kept = this->layer(layer);
  std::copy_n(pairs, rows_ * 2 * kv_width_, kept.pairs.data());
  kept.chosen.resize(static_cast<std::size_t>(rows_));
  std::iota(kept.chosen.begin(), kept.chosen.end(), std::int64_t{0});
}

void ResponseCache::Choose(std::int64_t layer, const float* pairs, kernels::WorkerPool& pool) {
  Layer& kept = this->layer(layer);
  similarity_.resize(static_cast<std::size_t>(rows_));
  transformer::ForRowRanges(pool, rows_, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t at = row * 2 * kv_width_ + kv_width_;
      float* const old = kept.pairs.data() + at;
      similarity_[static_cast<std::size_t>(row)] = ValueSimilarity(pairs + at, old, kv_width_);
      std::copy_n(pairs + at, kv_width_, old);
    }
  });
  kept.chosen = LeastSimilar(similarity_, share_);
}

double ValueSimilarity(const float* a, const float* b, std::int64_t width) {
  if (std::equal(a, a + width, b)) return 1;
  return kernels::CosineSimilarity(a, b, width);
}

std::vector<std::int64_t> LeastSimilar(std::span<const double> similarity, double share) {
  const auto rows = static_cast<std::int64_t>(similarity.size());
  const auto wanted = static_cast<std::int64_t>(std::ceil(share * static_cast<double>(rows)));
  const std::int64_t count = std::clamp(wanted, std::int64_t{1}, rows);
  const auto key = [&](std::int64_t row) {
    const double value = similarity[static_cast<std::size_t>(row)];
    return std::isnan(value) ? -2 : value;  // below every cosine
  };
  std::vector<std::int64_t> order(similarity.size());
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t a, std::int64_t b) { return key(a) < key(b); });
  order.resize(static_cast<std::size_t>(count));
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace maskkv::engine
