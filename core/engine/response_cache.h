// SPDX-License-Identifier: Apache-2.0
//
// The response feature cache of one request (dLLM-Cache, arXiv 2506.06295; docs/adr/0012): what
// each layer computed for the rows that the request recomputes in every step. Every `every`-th
// forward computes all rows; in between a layer computes V of all rows, compares it with the kept
// one, and only the share of rows whose V is least similar goes through Q, K, attention and FFN.
// The others add what is kept of them to their residual stream.
//
// The decoder drives it, layer by layer: Begin, then for each layer KeepPairs (whole) or Choose.
// It holds Bytes() from its first forward until it is destroyed. Not thread safe.
#ifndef MASKKV_CORE_ENGINE_RESPONSE_CACHE_H_
#define MASKKV_CORE_ENGINE_RESPONSE_CACHE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "core/engine/generate_params.h"
#include "core/model/config.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::engine {

class ResponseCache {
 public:
  // What one layer keeps.
  struct Layer {
    kernels::AlignedBuffer<float> pairs;         // (rows, 2 * kv_width): K, rotated, then V
    kernels::AlignedBuffer<float> attention;     // (rows, hidden): projected, without the residual
    kernels::AlignedBuffer<float> feed_forward;  // (rows, hidden): without the residual
    std::vector<std::int64_t> chosen;            // rows that the last forward computed, ascending
  };

  // REQUIRES: params.caches_response().
  ResponseCache(const GenerateParams& params, const model::ModelConfig& config);

  // What a request of so many rows holds.
  static std::int64_t BytesOf(const model::ModelConfig& config, std::int64_t rows);
  std::int64_t bytes() const;

  // Whether a forward of so many rows computes all of them: every `every`-th since the first or the
  // last Restart, and one of another number of rows than the last.
  bool NextIsWhole(std::int64_t rows) const { return forwards_ % every_ == 0 || rows != rows_; }

  // A forward of so many rows starts.
  void Begin(std::int64_t rows);
  bool whole() const { return whole_; }  // the forward in progress, or the last one

  // The next forward is whole: what rows attend to has changed.
  void Restart() { forwards_ = 0; }

  // Whole forward: keeps K and V of all rows, all of them chosen. pairs: (rows, 2 * kv_width).
  void KeepPairs(std::int64_t layer, const float* pairs);

  // Forward in between: chooses rows by their new V, then keeps V of all rows. pairs: (rows, 2 *
  // kv_width), whose V is read.
  void Choose(std::int64_t layer, const float* pairs, kernels::WorkerPool& pool);

  Layer& layer(std::int64_t index) { return layers_[static_cast<std::size_t>(index)]; }
  const Layer& layer(std::int64_t index) const { return layers_[static_cast<std::size_t>(index)]; }

 private:
  // Constant after construction.
  const std::int64_t every_;
  const double share_;
  const std::int64_t kv_width_;
  const std::int64_t hidden_;

  std::int64_t rows_ = 0;
  std::int64_t forwards_ = 0;
  bool whole_ = true;
  std::vector<Layer> layers_;
  std::vector<double> similarity_;  // (rows), scratch
};

// How alike two rows of V (width) are: their cosine over all heads; exactly 1 where all elements
// are equal, 0 where one of the two is all zeros. NaN propagates.
double ValueSimilarity(const float* a, const float* b, std::int64_t width);

// The ceil(share * rows) rows of lowest similarity, at least one, ties to the lower row; ascending.
// NaN is lower than any number. REQUIRES: at least one row, 0 < share <= 1.
std::vector<std::int64_t> LeastSimilar(std::span<const double> similarity, double share);

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_RESPONSE_CACHE_H_
