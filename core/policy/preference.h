// SPDX-License-Identifier: Apache-2.0
//
// How much a KV head reads the prompt: equation (14) of MaskKV (arXiv 2510.09309),
//
//   P_h = S_m2p / (S_m2p + S_m2m)
//
// where S_m2p and S_m2m are the mask queries' attention (equations (6), (7)) that falls on prompt
// keys and on mask keys. Keys are split by role, not by token id: the caller puts the prompt's keys
// first. Pure function, thread safe.
#ifndef MASKKV_CORE_POLICY_PREFERENCE_H_
#define MASKKV_CORE_POLICY_PREFERENCE_H_

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

namespace maskkv::policy {

struct HeadVote {
  double prompt_mass = 0;  // S_m2p
  double mask_mass = 0;    // S_m2m
  double preference = 0;   // P_h in [0, 1]; 0 if no key was attended to at all
};

// scores         (keys) f32 of one KV head, over all keys: the first prompt_tokens are the
// prompt's. prompt_tokens  0 to keys. Sums run in f64 over ascending keys. Errors: INVALID_ARGUMENT
// for a score that is NaN, infinite or negative, and for prompt_tokens out of range.
absl::StatusOr<HeadVote> PromptPreference(std::span<const float> scores,
                                          std::int64_t prompt_tokens);

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_PREFERENCE_H_
