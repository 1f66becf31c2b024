// SPDX-License-Identifier: Apache-2.0
//
// The matrix products of one decode step, done by oneDNN alone: the bound that a step is compared
// with. Every matrix of every layer has weights of its own and they run in the order of a step, so
// that they come from memory as in the engine; each is packed for the very shape, inputs lie ready
// in the computing type, OpenMP's own team computes (omp_set_num_threads).
//
// The rows are those of the engine: all rows of the step's requests at once, in the last layer's
// query, output and feed-forward products and in the vocabulary head the rows that predict.
//
// Set OMP_WAIT_POLICY=passive where the engine takes turns with it, or OpenMP's threads spin into
// the engine's turn. Not thread safe.
#ifndef MASKKV_TESTS_BENCH_STEP_PRODUCTS_H_
#define MASKKV_TESTS_BENCH_STEP_PRODUCTS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "core/model/config.h"
#include "kernels/base/dtype.h"
#include "tests/bench/onednn_matmul.h"
#include "tests/bench/timing.h"

namespace maskkv::bench {

// The weights of a model's matrices in every layout that was asked for, so that steps of several
// sizes share those that are alike.
class ProductWeights {
 public:
  // Of the `index`-th matrix of a step.
  kernels::OneDnnMatMul::Layouts& Of(std::size_t index) {
    if (index >= layouts_.size()) layouts_.resize(index + 1);
    return layouts_[index];
  }

 private:
  std::vector<kernels::OneDnnMatMul::Layouts> layouts_;
};

class StepProducts {
 public:
  // rows: of all requests together; masked: those of them that predict. Computes in what oneDNN has
  // for the dtype (OneDnnType). REQUIRES: a dense model, masked >= 1. `weights` outlives this.
  StepProducts(const model::ModelConfig& c, std::int64_t rows, std::int64_t masked,
               kernels::DType dtype, ProductWeights& weights)
      : dtype_(kernels::OneDnnType(dtype)) {
    const std::int64_t q = c.heads * c.head_dim, kv = 2 * c.kv_heads * c.head_dim;
    for (std::int64_t layer = 0; layer < c.layers; ++layer) {
      const std::int64_t advanced = layer + 1 < c.layers ? rows : masked;
      Add(rows, c.hidden, kv, weights);
      Add(advanced, c.hidden, q, weights);
      Add(advanced, q, c.hidden, weights);
      Add(advanced, c.hidden, 2 * c.ffn, weights);
      Add(advanced, c.ffn, c.hidden, weights);
    }
    Add(masked, c.hidden, c.vocab_rows, weights);
  }

  // Runs every product once, in order; seconds of all.
  double Run() {
    return SecondsOf([&] {
      for (const std::unique_ptr<kernels::OneDnnMatMul>& product : products_) product->Run();
    });
  }

  kernels::DType dtype() const { return dtype_; }
  double flops() const { return flops_; }
  // Of the weights that a pass reads.
  double weight_bytes() const { return weight_bytes_; }

 private:
  void Add(std::int64_t rows, std::int64_t in, std::int64_t out, ProductWeights& weights) {
    products_.push_back(std::make_unique<kernels::OneDnnMatMul>(rows, in, out, dtype_,
                                                                weights.Of(products_.size())));
    flops_ += 2.0 * static_cast<double>(rows * in * out);
    weight_bytes_ += static_cast<double>(in * out) * static_cast<double>(kernels::SizeOf(dtype_));
  }

  const kernels::DType dtype_;
  std::vector<std::unique_ptr<kernels::OneDnnMatMul>> products_;
  double flops_ = 0, weight_bytes_ = 0;
};

}  // namespace maskkv::bench

#endif  // MASKKV_TESTS_BENCH_STEP_PRODUCTS_H_
