// SPDX-License-Identifier: Apache-2.0
//
// The pairs of StreamingLLM (arXiv 2309.17453): attention sinks at the start, then the most recent.
// Pure function, thread safe.
#ifndef MASKKV_CORE_POLICY_RECENT_H_
#define MASKKV_CORE_POLICY_RECENT_H_

#include <cstdint>
#include <vector>

namespace maskkv::policy {

// Returns: (k) positions, strictly ascending: the first s = min(4, floor(k / 2)) and the last k - s
// of prompt_tokens. REQUIRES: 0 <= k <= prompt_tokens < 2^31.
std::vector<std::int32_t> SelectRecent(std::int64_t k, std::int64_t prompt_tokens);

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_RECENT_H_
