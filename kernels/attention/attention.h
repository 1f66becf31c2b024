// SPDX-License-Identifier: Apache-2.0
//
// Scaled dot-product attention without a causal mask, for every shape the engine has: the rows of
// one decoding step over [kept prompt pairs | rows of this step], and full bidirectional attention
// of n rows over themselves (the same call with `cached` empty). No n x n matrix ever exists: a
// tile of scores lives in the first-level cache and is folded into a running softmax.
//
//   out(i, h) = sum_j softmax_j(q(i, h) . k(j, g) / sqrt(head_dim)) v(j, g),    g = h /
//   (heads/kv_heads)
//
// j runs over the cached pairs of head g in their order, then over the request's own rows; the
// tiles of the running softmax run across that border, so attention over [cached | own] equals, bit
// for bit, attention over the same pairs given as own rows only.
//
// Determinism: an output row is a function of that row's query and of its head's pairs in order. It
// depends neither on the thread count, nor on the other requests of the call, nor on the other
// query rows. AVX-512 and AVX2 machines return the same bits; a machine without FMA differs from
// them within the error bound (kernels/attention/lane_kernels.h).
//
// Error of an element of out against exact arithmetic on the same inputs, u = 2^-24 (derived in
// tests/unit/kernels/attention/attention_problem.h), A = max_j sum_c |q_c k_jc| / sqrt(head_dim):
//   |error| <= (2 (head_dim + 8) A + 2 keys + 12 tiles + 10) u * sum_j p_j |v_j|,   tiles of 64
//   keys
// Weights below 2^-126 of the largest one are taken as zero.
//
// bf16 (AttentionShape::products). Inputs are bf16 numbers whose products are exact in f32. Where
// the machine multiplies pairs of bf16 (AVX-512 with bf16), scores and outputs do: sums stay in
// f32, but the softmax's weights are rounded to bf16 for their product with the values (not for
// lse, nor for what divides it), which adds 2^-8 sum_j p_j |v_j| to the error of out and nothing to
// that of lse; numbers below 2^-126 count as zero. Other machines compute as for f32: their bits
// differ within these bounds, as their matrix products' do.
//
// Thread safety: a call owns the pool and its workspace until it returns; inputs are only read.
#ifndef MASKKV_KERNELS_ATTENTION_ATTENTION_H_
#define MASKKV_KERNELS_ATTENTION_ATTENTION_H_

#include <cstdint>
#include <span>

#include "kernels/attention/workspace.h"
#include "kernels/base/dtype.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::kernels {

// heads % kv_heads == 0; query head h reads KV head h / (heads / kv_heads). head_dim >= 1, any.
struct AttentionShape {
  std::int64_t heads;
  std::int64_t kv_heads;
  std::int64_t head_dim;
  // kBF16: the elements of q, k and v are bf16 numbers (the caller has rounded them), and machines
  // with a bf16 unit multiply with it. See "bf16" above.
  DType products = DType::kF32;
};

// The kept pairs of one KV head: k and v are (pairs, head_dim), contiguous, of the request's
// cached_dtype, aligned to their element. pairs may be 0 (then the pointers may be null) and may
// differ from head to head. int8 pairs have scales, (pairs) each, and are read as int8 * scale,
// rounded to f32 (kernels/base/cached_row.h) and, where products are of bf16 numbers, to bf16:
// attention over them equals, bit for bit, attention over the same numbers given as f32 pairs.
// Other types have none.
struct CachedHead {
  const void* k;
  const void* v;
  std::int64_t pairs;
  const float* k_scales = nullptr;
  const float* v_scales = nullptr;
};

// One request of a call. Leading dimensions are in elements. Nothing is owned.
struct AttentionRequest {
  // (query_rows, heads * head_dim) f32, rows ldq apart, RoPE applied, not yet scaled.
  const float* q;
  std::int64_t ldq;
  std::int64_t query_rows;
  // (own_rows, kv_heads * head_dim) f32 each, rows ldkv apart: pairs of the rows computed now, keys
  // with RoPE applied.
  const float* k;
  const float* v;
  std::int64_t ldkv;
  std::int64_t own_rows;
  // kv_heads entries, or empty.
  std::span<const CachedHead> cached;
  DType cached_dtype;
  // (query_rows, heads * head_dim) f32, rows ldo apart. Overwritten; must not overlap any input.
  float* out;
  std::int64_t ldo;
  // (heads, query_rows) f32, contiguous: log(sum_j exp(score_j)), natural logarithm of the scaled
  // scores; MaskQueryScores takes it. May be null.
  float* lse;
};

// Computes every request of the call.
//
// Empty inputs: no requests or no query rows do nothing; a head with no keys at all (no cached
// pairs and own_rows == 0) gets out = 0 and lse = -inf.
// A NaN in q, k or v makes the rows it reaches NaN (never a crash): the caller detects it later.
// REQUIRES: the shapes above; leading dimensions >= the row width where there is more than one row.
void RaggedAttention(WorkerPool& pool, const AttentionShape& shape,
                     std::span<const AttentionRequest> requests, AttentionWorkspace& workspace);

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_ATTENTION_ATTENTION_H_
