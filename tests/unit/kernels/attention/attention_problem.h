// SPDX-License-Identifier: Apache-2.0
//
// A random attention request that owns its tensors, for tests: strided rows, kept pairs that differ
// from head to head, guard values in every gap of the output. Fields may be edited between calls.
// Not thread safe.
#ifndef MASKKV_TESTS_UNIT_KERNELS_ATTENTION_ATTENTION_PROBLEM_H_
#define MASKKV_TESTS_UNIT_KERNELS_ATTENTION_ATTENTION_PROBLEM_H_

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/base/cached_row.h"

namespace maskkv::kernels {

struct ProblemSpec {
  AttentionShape shape;
  std::int64_t query_rows;
  std::int64_t own_rows;
  std::vector<std::int64_t> pairs;  // kv_heads entries, or empty
  DType cached_dtype = DType::kF32;
  float query_scale = 1.0F;  // standard deviation of the query elements

  std::string ToString() const;
};

// Rows of a head with their scales.
struct Int8Rows {
  std::vector<std::int8_t> rows;
  std::vector<float> scales;

  float At(std::int64_t row, std::int64_t width, std::int64_t c) const {
    return static_cast<float>(rows[static_cast<std::size_t>(row * width + c)]) *
           scales[static_cast<std::size_t>(row)];
  }
};

// What a kernel wrote for a problem.
struct AttentionOutput {
  std::vector<float> out, lse;
};

class AttentionProblem {
 public:
  AttentionProblem(ProblemSpec spec, std::uint64_t seed);
  AttentionProblem(const AttentionProblem&) = delete;
  AttentionProblem& operator=(const AttentionProblem&) = delete;

  // Points into this object and into `output`, which is refilled with guard values. Rounds the
  // inputs to bf16 first if the shape's products are.
  AttentionRequest Request(AttentionOutput& output);

  const ProblemSpec& spec() const { return spec_; }
  std::int64_t Keys(std::int64_t kv_head) const;
  // Element c of key j of a KV head, in the order of the kernel's contract.
  double Key(std::int64_t kv_head, std::int64_t j, std::int64_t c) const;
  // max_j sum_c |q_c k_jc| / sqrt(head_dim) for one query row of one head.
  double MaxAbsScore(std::int64_t head, std::int64_t row) const;
  void MakeValuesPositive();

  // Row-major with a gap after each row.
  std::vector<float> q, own_k, own_v;
  std::int64_t ldq, ldkv, ldo;
  // One entry a KV head; those of cached_dtype are in use.
  std::vector<std::vector<float>> cached_k, cached_v;
  std::vector<std::vector<Bf16>> cached_k16, cached_v16;
  std::vector<Int8Rows> cached_k8, cached_v8;

 private:
  void RoundInputs();

  ProblemSpec spec_;
  std::vector<CachedHead> heads_;
};

// Where the fast kernel is compared with exact arithmetic; eps is the unit roundoff 2^-24.
//
// Score. The query is scaled by a constant of relative error 3 eps (square root, quotient,
// constant) with one rounding, and a chain of head_dim products follows (two roundings each without
// FMA): the natural-log score is wrong by at most (head_dim + 6) eps A, A = max_j sum|q||k_j| /
// sqrt(d). Weight. The exponent s_j - max is rounded once a tile that it crosses; as the maximum
// only rises, those distances add up to at most the final one, <= 2 A. Each exp2 costs 4 eps, each
// product with a rescaling factor another eps. So a weight has a relative error of at most
//   w = ((head_dim + 8) A + 4 + 5 tiles) eps.
// Sums. Weights, and weights times values, are added in one chain: (keys + tiles) eps relative to
// the sum of magnitudes. The reciprocal and its product cost 2 eps. Hence
//   |out error| <= (2 w + 2 (keys + tiles) eps + 2 eps) sum_j p_j |v_j|,
//   |lse error| <= w + (keys + tiles) eps + 4 eps (A + log(keys) + 1).
// Weights below 2^-126 of the maximum become zero: one smallest normal number a key, times |v|.
//
// Products of bf16 numbers. Each is exact, a score is head_dim of them added up with a rounding
// each, and is scaled after the maximum has been taken from it: the constant, the difference and
// the product with it cost 5 eps of that difference, which is at most 2 A. So w has head_dim + 10
// in the place of head_dim + 8. A weight is rounded to bf16, 2^-8 of it, where it meets its value
// and nowhere else: 2^-8 sum_j p_j |v_j| more. What the unit flushes to zero is below 2^-126 as
// above.
struct AttentionBound {
  double weight;  // w
  double out;     // factor of sum_j p_j |v_j|
  double lse;     // absolute
};
AttentionBound BoundFor(double max_abs_score, const AttentionShape& shape, std::int64_t keys);

// Compares what a kernel wrote with the twin. Returns "" or a line with the worst index by error
// over bound, both values and the bound. Changes the signs of the problem's values.
std::string CompareWithTwin(AttentionProblem& problem, const AttentionOutput& got);

}  // namespace maskkv::kernels

#endif  // MASKKV_TESTS_UNIT_KERNELS_ATTENTION_ATTENTION_PROBLEM_H_
