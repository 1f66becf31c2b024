// SPDX-License-Identifier: Apache-2.0
//
// A GenerateRequest with its defaults filled in and every field checked, apart from the prompt,
// which ModelRuntime reads (as it does the canvas), and the keep policy, which the prefill service
// checks. Pure function.
#ifndef MASKKV_SERVICES_DECODE_REQUEST_CHECK_H_
#define MASKKV_SERVICES_DECODE_REQUEST_CHECK_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/arena/handle.h"
#include "core/engine/generate_params.h"

namespace maskkv::v1 {
class GenerateRequest;
}

namespace maskkv::decode {

struct RequestLimits {
  std::int64_t max_gen_length = 4096;
  std::int32_t max_samples = 64;
  bool has_tokenizer = true;
  std::vector<std::int32_t> stop_ids;  // of the model: eos, then end of turn
  std::int32_t mask_id = 0;            // and its vocabulary: what an automaton may name
  std::int64_t vocabulary = 0;
};

struct CheckedRequest {
  engine::GenerateParams params;
  // What the answer starts with: (gen_length) ids, the mask id where nothing is decided. Empty:
  // nothing but masks.
  std::vector<std::int32_t> canvas;
  bool use_cache = true;                // CACHE_COMPRESSED
  std::optional<arena::Handle> reused;  // REUSE_KEPT: whose pairs serve this question too
  bool votes_over = false;  // REUSE_VOTE_OVER: the prefill votes over the request's handle
  std::int32_t priority = 0;
  std::int32_t samples = 1;
  std::vector<std::string> stop;
  bool provisional = false;
  std::chrono::milliseconds keep_entry{0};
};

// canvas: ids of request.canvas (ModelRuntime::TokenizeCanvas); empty without one.
// Errors: INVALID_ARGUMENT (BAD_SAMPLER, BAD_SAMPLES, BAD_STOP, BAD_PRIORITY, BAD_CACHE, BAD_REUSE,
// BAD_HANDLE, BAD_KEEP_ENTRY, BAD_AUTOMATON, NO_PROMPT), FAILED_PRECONDITION (NO_TOKENIZER).
absl::StatusOr<CheckedRequest> CheckRequest(const v1::GenerateRequest& request,
                                            const RequestLimits& limits,
                                            std::vector<std::int32_t> canvas = {});

}  // namespace maskkv::decode

#endif  // MASKKV_SERVICES_DECODE_REQUEST_CHECK_H_
