// SPDX-License-Identifier: Apache-2.0
//
// Why a prefill keeps what it keeps: budgets, preferences, positions and scores of every head. What
// it returns is derived from the prompt and as secret as it.
#ifndef MASKKV_SERVICES_PREFILL_EXPLAIN_H_
#define MASKKV_SERVICES_PREFILL_EXPLAIN_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "core/model/config.h"
#include "services/prefill/compressor.h"

namespace maskkv::v1 {
class ExplainResponse;
}

namespace maskkv::prefill {

// Bytes that an explanation takes as a message, or a little more.
std::uint64_t ExplanationBytes(const model::ModelConfig& config, const Job& job, bool with_scores);

// Bytes that it needs besides a prefill's: the message and the pairs that are kept for a moment.
std::uint64_t ExplainingBytes(const model::ModelConfig& config, const Job& job, bool with_scores);

// OK if the explanation fits one message.
// Errors: RESOURCE_EXHAUSTED (RESPONSE_TOO_LARGE) with the limit.
absl::Status CheckExplanation(const model::ModelConfig& config, const Job& job, bool with_scores,
                              std::uint64_t max_bytes);

// Runs the forward and fills everything but what the model says of itself.
// Errors: of Compressor::RunInto.
absl::Status Explain(Compressor& compressor, const model::ModelConfig& config, const Job& job,
                     bool with_scores, const std::function<absl::Status()>& alive,
                     v1::ExplainResponse& response);

}  // namespace maskkv::prefill

#endif  // MASKKV_SERVICES_PREFILL_EXPLAIN_H_
