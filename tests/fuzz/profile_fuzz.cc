// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as an importance profile: either an error of one line, or a profile that is valid,
// survives its own format, and gives layer budgets with the exact total.
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "core/base/check.h"
#include "core/policy/layer_budget.h"
#include "core/policy/profile.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace maskkv;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto profile = policy::ParseProfile(text, "profile.json");
  if (!profile.ok()) {
    const absl::string_view message = profile.status().message();
    for (const char c : message) MASKKV_CHECK(c >= ' ' && c <= '~', "one line of ASCII");
    MASKKV_CHECK(message.substr(0, 14) == "profile.json: ", "the message names the file");
    return 0;
  }
  MASKKV_CHECK(policy::Validate(*profile).ok(), "what is parsed is valid");
  const auto again = policy::ParseProfile(policy::FormatProfile(*profile), "again.json");
  MASKKV_CHECK(again.ok() && *again == *profile, "a profile survives its own format");
  constexpr std::int64_t kBudget = 37;
  const auto budgets = policy::AllocateLayerBudgets(profile->importance, kBudget, 0.4, 50);
  MASKKV_CHECK(budgets.ok(), "a valid profile gives budgets");
  MASKKV_CHECK(std::accumulate(budgets->begin(), budgets->end(), std::int64_t{0}) ==
                   kBudget * static_cast<std::int64_t>(profile->importance.size()),
               "the total is exact");
  return 0;
}
