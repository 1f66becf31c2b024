// SPDX-License-Identifier: Apache-2.0
//
// The oracle's policy cases (tests/data/golden/policy.json) by kind.
#ifndef MASKKV_TESTS_UNIT_CORE_POLICY_GOLDEN_POLICY_H_
#define MASKKV_TESTS_UNIT_CORE_POLICY_GOLDEN_POLICY_H_

#include <gtest/gtest.h>

#include <cstddef>
#include <fstream>
#include <utility>

#include "nlohmann/json.hpp"

namespace maskkv::policy {

// The cases of one kind; fails the test if there are fewer than `least`.
inline nlohmann::json GoldenCases(const char* kind, std::size_t least) {
  std::ifstream file(MASKKV_SOURCE_DIR "/tests/data/golden/policy.json");
  nlohmann::json all = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  EXPECT_FALSE(all.is_discarded()) << "tests/data/golden/policy.json";
  if (all.is_discarded()) return nlohmann::json::array();
  EXPECT_GE(all[kind].size(), least) << kind;
  return std::move(all[kind]);
}

}  // namespace maskkv::policy

#endif  // MASKKV_TESTS_UNIT_CORE_POLICY_GOLDEN_POLICY_H_
