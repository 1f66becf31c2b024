// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/attention_ref.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace maskkv::kernels::ref {
namespace {

using Row = std::vector<double>;

// scales: of the rows of int8 data, which products of bf16 take as the nearest bf16 numbers.
float Element(const void* data, DType dtype, const float* scales, DType products, std::int64_t row,
              std::int64_t width, std::int64_t i) {
  const std::int64_t at = row * width + i;
  switch (dtype) {
    case DType::kF32:
      return static_cast<const float*>(data)[at];
    case DType::kBF16:
      return ToFloat(static_cast<const Bf16*>(data)[at]);
    case DType::kInt8:
      break;
  }
  const float value = static_cast<float>(static_cast<const std::int8_t*>(data)[at]) * scales[row];
  return products == DType::kBF16 ? ToFloat(ToBf16(value)) : value;
}

Row LoadRow(const void* data, DType dtype, const float* scales, DType products, std::int64_t row,
            std::int64_t width) {
  Row values(static_cast<std::size_t>(width));
  for (std::int64_t i = 0; i < width; ++i) {
    values[static_cast<std::size_t>(i)] = Element(data, dtype, scales, products, row, width, i);
  }
  return values;
}

double ScaledDot(const float* q, const Row& k) {
  double sum = 0;
  for (std::size_t i = 0; i < k.size(); ++i) sum += static_cast<double>(q[i]) * k[i];
  return sum / std::sqrt(static_cast<double>(k.size()));
}

// Every key (or value) row of one KV head, in the order of the contract.
std::vector<Row> Gather(const AttentionShape& shape, const AttentionRequest& request,
                        std::int64_t kv_head, bool values) {
  std::vector<Row> rows;
  if (!request.cached.empty()) {
    const CachedHead& head = request.cached[static_cast<std::size_t>(kv_head)];
    for (std::int64_t j = 0; j < head.pairs; ++j) {
      rows.push_back(LoadRow(values ? head.v : head.k, request.cached_dtype,
                             values ? head.v_scales : head.k_scales, shape.products, j,
                             shape.head_dim));
    }
  }
  for (std::int64_t j = 0; j < request.own_rows; ++j) {
    const float* own = (values ? request.v : request.k) + j * request.ldkv;
    rows.push_back(LoadRow(own + kv_head * shape.head_dim, DType::kF32, nullptr, shape.products, 0,
                           shape.head_dim));
  }
  return rows;
}

}  // namespace

void Attention(const AttentionShape& shape, const AttentionRequest& request) {
  for (std::int64_t h = 0; h < shape.heads; ++h) {
    const std::int64_t kv_head = h / (shape.heads / shape.kv_heads);
    const std::vector<Row> keys = Gather(shape, request, kv_head, false);
    const std::vector<Row> values = Gather(shape, request, kv_head, true);
    for (std::int64_t i = 0; i < request.query_rows; ++i) {
      const float* q = request.q + i * request.ldq + h * shape.head_dim;
      std::vector<double> weights;
      weights.reserve(keys.size());
      for (const Row& key : keys) weights.push_back(ScaledDot(q, key));
      double max = -std::numeric_limits<double>::infinity();
      for (const double score : weights) max = std::max(max, score);
      double sum = 0;
      for (double& weight : weights) sum += (weight = std::exp(weight - max));
      for (std::int64_t c = 0; c < shape.head_dim; ++c) {
        double out = 0;
        for (std::size_t j = 0; j < keys.size(); ++j) {
          out += weights[j] / sum * values[j][static_cast<std::size_t>(c)];
        }
        request.out[i * request.ldo + h * shape.head_dim + c] = static_cast<float>(out);
      }
      if (request.lse != nullptr) {
        request.lse[h * request.query_rows + i] = static_cast<float>(max + std::log(sum));
      }
    }
  }
}

void MaskQueryScores(const AttentionShape& shape, const float* q, std::int64_t ldq,
                     std::int64_t mask_rows, const float* lse, const float* k, std::int64_t ldk,
                     std::int64_t keys, float* scores) {
  const std::int64_t group = shape.heads / shape.kv_heads;
  for (std::int64_t g = 0; g < shape.kv_heads; ++g) {
    for (std::int64_t j = 0; j < keys; ++j) {
      const Row key = LoadRow(k + j * ldk + g * shape.head_dim, DType::kF32, nullptr,
                              shape.products, 0, shape.head_dim);
      double score = 0;
      for (std::int64_t h = g * group; h < (g + 1) * group; ++h) {
        for (std::int64_t i = 0; i < mask_rows; ++i) {
          score += std::exp(ScaledDot(q + i * ldq + h * shape.head_dim, key) -
                            static_cast<double>(lse[h * mask_rows + i]));
        }
      }
      scores[g * keys + j] = static_cast<float>(score);
    }
  }
}

}  // namespace maskkv::kernels::ref
