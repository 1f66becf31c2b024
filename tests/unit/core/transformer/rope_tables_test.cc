// SPDX-License-Identifier: Apache-2.0
//
// Rotation tables by factor: what they hold, how many are kept, and runs of rows.
#include "core/transformer/rope_tables.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tests/support/seed.h"

namespace maskkv::transformer {
namespace {

using kernels::RopeTable;

model::ModelConfig Config() {
  model::ModelConfig config;
  config.rope_theta = 1e4;
  config.head_dim = 6;
  return config;
}

bool SameRotations(const RopeTable& a, const RopeTable& b, std::int64_t positions) {
  for (std::int64_t position = 0; position < positions; ++position) {
    for (std::int64_t i = 0; i < a.head_dim() / 2; ++i) {
      if (a.Cos(position)[i] != b.Cos(position)[i] || a.Sin(position)[i] != b.Sin(position)[i]) {
        return false;
      }
    }
  }
  return true;
}

TEST(RopeTablesTest, ATableIsThatOfTheScaledBase) {
  RopeTables tables(Config(), kernels::DType::kF32, 3000);
  EXPECT_TRUE(SameRotations(*tables.Get(1, 100), RopeTable::Build(1e4, 6, 100), 100));
  EXPECT_TRUE(SameRotations(*tables.Get(14, 100), RopeTable::Build(14e4, 6, 100), 100));
  EXPECT_FALSE(SameRotations(*tables.Get(14, 100), *tables.Get(1, 100), 100));
  model::ModelConfig rounds = Config();
  rounds.rope_in_compute_dtype = true;
  RopeTables rounded(rounds, kernels::DType::kBF16, 3000);
  EXPECT_TRUE(SameRotations(*rounded.Get(3, 100),
                            RopeTable::Build(3e4, 6, 100, kernels::DType::kBF16), 100));
}

TEST(RopeTablesTest, ATableGrowsWithThePositionsAndKeepsItsRotations) {
  RopeTables tables(Config(), kernels::DType::kF32, 3000);
  const auto first = tables.Get(2, 0);
  EXPECT_EQ(first->positions(), RopeTables::kShortest);
  EXPECT_EQ(tables.Get(2, RopeTables::kShortest), first);
  const auto longer = tables.Get(2, RopeTables::kShortest + 1);
  EXPECT_EQ(longer->positions(), 2 * RopeTables::kShortest);
  EXPECT_TRUE(SameRotations(*first, *longer, first->positions()));
  EXPECT_EQ(tables.Get(2, 3000)->positions(), 3000);  // not beyond the model's
  EXPECT_EQ(tables.size(), 1u);
  EXPECT_EQ(RopeTables(Config(), kernels::DType::kF32, 5).Get(1, 5)->positions(), 5);
  EXPECT_EQ(RopeTables(Config(), kernels::DType::kF32, 0).Get(1, 0)->positions(), 0);
}

TEST(RopeTablesTest, TheTableUsedLeastRecentlyGoesAndLivesOnWithItsUsers) {
  RopeTables tables(Config(), kernels::DType::kF32, 100);
  const auto one = tables.Get(1, 100);
  const std::weak_ptr<const RopeTable> two = tables.Get(2, 100);
  for (double scale = 3; scale <= RopeTables::kKept; ++scale) tables.Get(scale, 100);
  EXPECT_EQ(tables.size(), RopeTables::kKept);
  EXPECT_EQ(tables.Get(1, 100), one);  // used again: now 2 is the oldest
  tables.Get(100, 100);
  EXPECT_TRUE(two.expired());
  EXPECT_EQ(tables.Get(1, 100), one);
  for (double scale = 200; scale < 200 + RopeTables::kKept; ++scale) tables.Get(scale, 100);
  EXPECT_TRUE(SameRotations(*one, RopeTable::Build(1e4, 6, 100), 100)) << "still held here";
  EXPECT_NE(tables.Get(1, 100), one);
}

TEST(RopeTablesTest, HoldsItsInvariantsUnderRandomUse) {
  std::mt19937_64 random(maskkv::testing::Seed());
  RopeTables tables(Config(), kernels::DType::kF32, 5000);
  std::vector<std::shared_ptr<const RopeTable>> held;
  for (int i = 0; i < 300; ++i) {
    const auto positions = static_cast<std::int64_t>(random() % 5001);
    const auto table = tables.Get(1.0 + static_cast<double>(random() % 7), positions);
    EXPECT_GE(table->positions(), positions);
    if (random() % 3 == 0) held.push_back(table);
    if (random() % 4 == 0) held.clear();
    tables.CheckInvariants();
  }
}

TEST(RopeTablesTest, RunsOfOneTableAreOneRun) {
  const RopeTable a = RopeTable::Build(1e4, 6, 1), b = RopeTable::Build(2e4, 6, 1);
  std::vector<RopeRun> runs;
  AddRopeRun({2, &a}, runs);
  AddRopeRun({3, &a}, runs);
  AddRopeRun({1, &b}, runs);
  AddRopeRun({4, &a}, runs);
  ASSERT_EQ(runs.size(), 3u);
  EXPECT_EQ(runs[0].rows, 5);
  EXPECT_EQ(runs[1].rows, 1);
  EXPECT_EQ(runs[2].rows, 4);
  EXPECT_EQ(runs[2].table, &a);
}

}  // namespace
}  // namespace maskkv::transformer
