// SPDX-License-Identifier: Apache-2.0
//
// Reducers that choose a token and tell how sure the model is: ArgmaxReducer (temperature 0) and
// GumbelReducer (temperature T > 0: arg-max of logit + T * Gumbel noise, which samples from
// softmax(logits / T)). Confidence is softmax(raw logits)[token] in both: temperature never enters.
// Forbidden ids (the mask token, a suppressed end token) are removed before the softmax.
//
// Both are immutable and thread safe. They refer to the caller's list of forbidden ids, which
// outlives them.
#ifndef MASKKV_KERNELS_HEAD_TOKEN_REDUCER_H_
#define MASKKV_KERNELS_HEAD_TOKEN_REDUCER_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/head/vocab_head.h"

namespace maskkv::kernels {

// The state and the result of both reducers.
struct TokenChoice {
  std::int32_t token;    // -1: no id is allowed, or every allowed logit is -infinity
  std::int32_t invalid;  // 1: an allowed logit was NaN or +infinity; the other fields mean nothing
  float logit;           // of `token`, raw
  float score;           // what was maximised: the logit, or the logit with noise
  float max;             // of all allowed logits
  float unused;
  double sum;  // of exp(logit - max) over allowed ids

  // A token was chosen from numbers. The engine turns false into an error.
  bool valid() const { return token >= 0 && invalid == 0; }

  // softmax over the allowed ids at `token`, in (0, 1]. REQUIRES: valid().
  double confidence() const;

  // Its natural logarithm, also where the confidence is too small for a number. REQUIRES: valid().
  double log_confidence() const;
};
static_assert(sizeof(TokenChoice) == 32);

// arg-max; ties go to the lowest id.
class ArgmaxReducer : public LogitReducer {
 public:
  // forbidden: ascending ids without repeats; ids beyond the vocabulary are allowed and never met.
  explicit ArgmaxReducer(std::span<const std::int32_t> forbidden) : forbidden_(forbidden) {}

  std::size_t state_bytes() const override { return sizeof(TokenChoice); }
  void Init(void* state) const override;
  void Consume(std::int64_t row_tag, std::int32_t first_id, std::span<float> logits,
               void* state) const override;
  void Merge(const void* later, void* into) const override;

 private:
  std::span<const std::int32_t> forbidden_;
};

// arg-max of logit + temperature * g, ties to the lowest id; g is the Gumbel noise of
// (seed, row tag = canvas position, step, id) defined in kernels/sample/gumbel.h.
class GumbelReducer : public LogitReducer {
 public:
  // REQUIRES: temperature > 0 and finite; forbidden as above.
  GumbelReducer(std::uint64_t seed, std::uint32_t step, float temperature,
                std::span<const std::int32_t> forbidden)
      : seed_(seed), step_(step), temperature_(temperature), forbidden_(forbidden) {}

  std::size_t state_bytes() const override { return sizeof(TokenChoice); }
  void Init(void* state) const override;
  void Consume(std::int64_t row_tag, std::int32_t first_id, std::span<float> logits,
               void* state) const override;
  void Merge(const void* later, void* into) const override;

 private:
  std::uint64_t seed_;
  std::uint32_t step_;
  float temperature_;
  std::span<const std::int32_t> forbidden_;
};

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_HEAD_TOKEN_REDUCER_H_
