// SPDX-License-Identifier: Apache-2.0
//
// Layer and head rules of policies against the NumPy oracle (python/maskkv_oracle), which computes
// in rational numbers from docs/policies.md alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "core/policy/adakv.h"
#include "core/policy/pair_pool.h"
#include "core/policy/pyramid.h"
#include "core/policy/squeeze.h"
#include "core/policy/window.h"
#include "nlohmann/json.hpp"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/policy/golden_policy.h"

namespace maskkv::policy {
namespace {

using nlohmann::json;
using Integers = std::vector<std::int64_t>;
using Positions = std::vector<std::int32_t>;
using Kept = std::vector<Positions>;

std::vector<float> Flat(const json& rows) {
  std::vector<float> flat;
  for (const json& row : rows) {
    for (const json& value : row) flat.push_back(value);
  }
  return flat;
}

TEST(GoldenRules, PyramidLayersAreTheOracles) {
  for (const json& golden : GoldenCases("pyramid", 50)) {
    SCOPED_TRACE(golden.dump());
    MASKKV_ASSERT_OK_AND_ASSIGN(
        const Integers budgets,
        PyramidLayerBudgets(golden["layers"], golden["budget"], golden["candidates"]));
    EXPECT_EQ(budgets, golden["layer_budgets"].get<Integers>());
  }
}

TEST(GoldenRules, SqueezeLayersAreTheOracles) {
  for (const json& golden : GoldenCases("squeeze", 50)) {
    SCOPED_TRACE(golden.dump());
    MASKKV_ASSERT_OK_AND_ASSIGN(const Integers budgets,
                                SqueezeLayerBudgets(golden["importance"].get<std::vector<double>>(),
                                                    golden["budget"], golden["candidates"]));
    EXPECT_EQ(budgets, golden["layer_budgets"].get<Integers>());
  }
}

TEST(GoldenRules, AdaKvHeadsAndTheirPairsAreTheOracles) {
  int ties = 0, differing = 0;
  for (const json& golden : GoldenCases("adakv", 50)) {
    SCOPED_TRACE(golden.dump());
    const std::vector<float> scores = Flat(golden["scores"]);
    const auto candidates = static_cast<std::int64_t>(golden["scores"][0].size());
    const std::int64_t k = golden["layer_budget"];
    const std::int64_t window = golden["window"];
    MASKKV_ASSERT_OK_AND_ASSIGN(
        const Integers budgets,
        AdaKvHeadBudgets(scores, candidates, candidates, k, std::min(window, k)));
    const auto expected = golden["head_budgets"].get<Integers>();
    if (golden["tie"].get<bool>()) {  // of fifths, which doubles round
      ++ties;
      differing += budgets == expected ? 0 : 1;
    } else {
      EXPECT_EQ(budgets, expected);
    }
    for (std::size_t head = 0; head < expected.size(); ++head) {
      const std::vector<float> row(
          scores.begin() + static_cast<std::ptrdiff_t>(head) * candidates,
          scores.begin() + static_cast<std::ptrdiff_t>(head + 1) * candidates);
      MASKKV_ASSERT_OK_AND_ASSIGN(const Positions kept,
                                  SelectWithWindow(row, expected[head], window));
      EXPECT_EQ(kept, golden["kept"][head].get<Positions>());
    }
  }
  std::printf("%d ties of fifths, %d of them fall otherwise in doubles\n", ties, differing);
}

TEST(GoldenRules, ThePoolOfAllLayersKeepsTheOraclesPairs) {
  for (const json& golden : GoldenCases("pool", 30)) {
    SCOPED_TRACE(golden.dump());
    const json& layers = golden["scores"];
    const auto heads = static_cast<std::int64_t>(layers[0].size());
    const auto candidates = static_cast<std::int64_t>(layers[0][0].size());
    const std::int64_t budget = std::min(golden["budget"].get<std::int64_t>(), candidates);
    PairPool pool(heads, static_cast<std::int64_t>(layers.size()) * heads * budget);
    for (const json& layer : layers) {
      ASSERT_TRUE(pool.AddLayer(Flat(layer), candidates, candidates).ok());
    }
    pool.CheckInvariants();
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
      for (std::size_t head = 0; head < layers[layer].size(); ++head) {
        EXPECT_EQ(pool.Kept(static_cast<std::int64_t>(layer), static_cast<std::int64_t>(head)),
                  golden["kept"][layer][head].get<Positions>());
      }
    }
  }
}

TEST(GoldenRules, ThePoolOfALayersHeadsKeepsTheOraclesPairs) {
  for (const json& golden : GoldenCases("head_pool", 30)) {
    SCOPED_TRACE(golden.dump());
    const auto candidates = static_cast<std::int64_t>(golden["scores"][0].size());
    const std::int64_t k = golden["layer_budget"];
    const std::int64_t forced = std::min(golden["window"].get<std::int64_t>(), k);
    MASKKV_ASSERT_OK_AND_ASSIGN(
        const Kept kept, SelectPooled(Flat(golden["scores"]), candidates, candidates, k, forced));
    EXPECT_EQ(kept, golden["kept"].get<Kept>());
  }
}

}  // namespace
}  // namespace maskkv::policy
