// SPDX-License-Identifier: Apache-2.0
#include "core/policy/recent.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/policy/arguments.h"

namespace maskkv::policy {
namespace {

constexpr std::int64_t kSinks = 4;

}  // namespace

std::vector<std::int32_t> SelectRecent(std::int64_t k, std::int64_t prompt_tokens) {
  MASKKV_CHECK(k >= 0 && k <= prompt_tokens && prompt_tokens <= kMaxPromptTokens,
               "a head keeps positions of the prompt");
  const std::int64_t sinks = std::min(kSinks, k / 2);
  std::vector<std::int32_t> kept;
  kept.reserve(static_cast<std::size_t>(k));
  for (std::int64_t row = 0; row < sinks; ++row) kept.push_back(static_cast<std::int32_t>(row));
  for (std::int64_t row = prompt_tokens - (k - sinks); row < prompt_tokens; ++row) {
    kept.push_back(static_cast<std::int32_t>(row));
  }
  return kept;
}

}  // namespace maskkv::policy
