// SPDX-License-Identifier: Apache-2.0
//
// What a caller may ask of decoding: canvas, sampling, rule. Pure values and functions.
#ifndef MASKKV_CORE_ENGINE_GENERATE_PARAMS_H_
#define MASKKV_CORE_ENGINE_GENERATE_PARAMS_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "core/decoding/rule.h"
#include "core/decoding/token_automaton.h"
#include "core/engine/growth.h"

namespace maskkv::engine {

struct GenerateParams {
  std::int64_t gen_length = 128;   // masks appended to the prompt, without growth
  std::int64_t block_length = 32;  // decoded left to right, block by block; divides gen_length
  // Denoising steps, a multiple of the number of blocks. Read by scheduled rules only. Blocks that
  // a canvas grows by have as many steps each.
  std::int64_t steps = 128;
  double temperature = 0;     // 0: arg-max; else samples softmax(logits / temperature)
  std::uint64_t seed = 0;     // of the sampling noise
  bool suppress_eos = false;  // the first of stop_ids (the checkpoint's eos) is never predicted
  bool ignore_eos = false;    // decode the whole canvas even after an eos is decided
  // The canvas is decided to its last mask and all of it is the answer, whatever ids it holds: what
  // filling in between given tokens needs.
  bool whole_canvas = false;
  std::vector<std::int32_t> stop_ids;  // ids that end an answer: eos first, then end of turn
  decoding::RuleParams rule;
  // Null: any answer. Else the answer is one that it accepts (core/engine/constraint.h).
  std::shared_ptr<const decoding::TokenAutomaton> automaton;
  // Over a cache (core/engine/refresh.h): after so many steps over an entry the prompt is prefilled
  // again with the response as it stands. 0: never.
  std::int64_t refresh_every = 0;
  // The same once the share of attention that falls on kept pairs is below this part of what it was
  // in the entry's first step; 0 to 1, 0: never, and the share is not measured.
  double refresh_floor = 0;
  Growth growth;  // of the canvas at its end

  // Every so many forwards all rows are recomputed; in between only the share of rows that changed
  // most, the others reuse what is kept of them (core/engine/response_cache.h). 0, 1: all rows in
  // every forward, nothing is kept.
  std::int64_t response_every = 0;
  double response_share = 0.25;  // (0, 1]; read with response_every of 2 or more

  bool caches_response() const { return response_every > 1; }
  // Classifier-free guidance: logits = un + (cfg_scale + 1) * (cond - un), un of the same canvas
  // behind a prompt of nothing but masks. 0: none; to decoding::kMostGuidance. Twice the rows.
  double cfg_scale = 0;

  bool guided() const { return cfg_scale > 0; }
  bool grows() const { return growth.max_gen_length > gen_length; }
  bool refreshes() const { return refresh_every > 0 || refresh_floor > 0; }
  // Masks that the canvas may come to have: what positions and memory are checked against.
  std::int64_t longest() const { return std::max(gen_length, growth.max_gen_length); }
  // Before it grows.
  std::int64_t blocks() const { return gen_length / block_length; }
  std::int64_t steps_per_block() const { return steps / blocks(); }
};

// The block length of callers who ask for none: 8 if it divides gen_length, else all of it; all of
// it for rules without blocks (decoding::HasBlocks). REQUIRES: gen_length >= 1.
std::int64_t DefaultBlockLength(decoding::Rule rule, std::int64_t gen_length);

// That steps were asked for (steps not 0) only with a rule that goes by them.
// Errors: INVALID_ARGUMENT.
absl::Status CheckStepsAreRead(decoding::Rule rule, std::int64_t steps);

// Errors: INVALID_ARGUMENT that names the parameter, what was found and what was expected.
absl::Status Validate(const GenerateParams& params);

enum class FinishReason : std::uint8_t {
  kNone,    // still running
  kStop,    // everything up to the first stop id is decided
  kLength,  // the canvas is decided and holds no stop id (or they end nothing)
};

std::string_view Name(FinishReason reason);  // "none", "stop", "length"

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_GENERATE_PARAMS_H_
