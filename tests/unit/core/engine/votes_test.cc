// SPDX-License-Identifier: Apache-2.0
//
// Scores of sets of voting rows against a softmax in double precision, rows given in blocks.
#include "core/engine/votes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "tests/support/seed.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::votes_test {
namespace {

constexpr std::int64_t kPrompt = 300;  // more than one block
constexpr std::int64_t kMasks = 9;
constexpr std::int64_t kRows = kPrompt + kMasks;

EvictionPlan PlanOf(Voters voters, std::int64_t budget = 64) {
  EvictionPlan plan;
  plan.voters = voters;
  plan.budget = budget;
  return plan;
}

TEST(VotersOf, AreRowsOfTheForward) {
  const auto rows = [](Voters voters, std::int64_t prompt, std::int64_t masks,
                       std::int64_t budget = 64) {
    return VotersOf(PlanOf(voters, budget), prompt, masks);
  };
  EXPECT_EQ(rows(Voters::kMasks, 10, 8), (VotingRows{10, 18}));
  EXPECT_EQ(rows(Voters::kMasksFront, 10, 9), (VotingRows{10, 12}));
  EXPECT_EQ(rows(Voters::kMasksSecond, 10, 9), (VotingRows{12, 14}));
  EXPECT_EQ(rows(Voters::kMasksThird, 10, 9), (VotingRows{14, 16}));
  EXPECT_EQ(rows(Voters::kMasksBack, 10, 9), (VotingRows{16, 19}));
  for (const Voters quarter : {Voters::kMasksFront, Voters::kMasksBack}) {
    EXPECT_EQ(rows(quarter, 10, 1), (VotingRows{10, 11}));
  }
  EXPECT_EQ(rows(Voters::kMasksSecond, 0, 2), (VotingRows{0, 1}));
  EXPECT_EQ(rows(Voters::kPrompt, 10, 8), (VotingRows{0, 10}));
  EXPECT_EQ(rows(Voters::kAll, 10, 8), (VotingRows{0, 18}));
  EXPECT_EQ(rows(Voters::kWindow, 100, 8, 20), (VotingRows{90, 100}));
  EXPECT_EQ(rows(Voters::kWindow, 4, 8, 20), (VotingRows{0, 4}));
  EXPECT_EQ(rows(Voters::kRecent, 10, 8), (VotingRows{10, 18}));
  EvictionPlan full = PlanOf(Voters::kPrompt);
  full.selection = Selection::kFull;  // reads no voters
  EXPECT_EQ(VotersOf(full, 10, 8), (VotingRows{10, 18}));
}

class VotesTest : public ::testing::Test {
 protected:
  VotesTest()
      : model_(absl::StrCat(MASKKV_SOURCE_DIR, "/tests/data/golden/checkpoints/deep"),
               kernels::DType::kF32, 2, kRows),
        queries_(testing::NormalValues(kRows * transformer().query_width(), 1)),
        kv_(testing::NormalValues(kRows * 2 * transformer().kv_width(), 2)) {
    const kernels::AttentionShape& shape = transformer().shape();
    for (std::int64_t head = 0; head < shape.heads; ++head) {
      for (std::int64_t row = 0; row < kRows; ++row) {
        double sum = 0;
        for (std::int64_t key = 0; key < kRows; ++key) sum += std::exp(Logit(head, row, key));
        log_sum_exp_.push_back(static_cast<float>(std::log(sum)));
      }
    }
  }

  transformer::Transformer& transformer() { return model_.transformer; }

  double Logit(std::int64_t head, std::int64_t row, std::int64_t key) {
    const kernels::AttentionShape& shape = transformer().shape();
    const std::int64_t kv_head = head / (shape.heads / shape.kv_heads);
    double sum = 0;
    for (std::int64_t c = 0; c < shape.head_dim; ++c) {
      const auto q =
          static_cast<std::size_t>(row * transformer().query_width() + head * shape.head_dim + c);
      const auto k = static_cast<std::size_t>(key * 2 * transformer().kv_width() +
                                              kv_head * shape.head_dim + c);
      sum += static_cast<double>(queries_[q]) * static_cast<double>(kv_[k]);
    }
    return sum / std::sqrt(static_cast<double>(shape.head_dim));
  }

  void Give(Votes& votes, std::int64_t begin, std::int64_t end) {
    std::vector<float> log_sum_exp;
    for (std::int64_t head = 0; head < transformer().shape().heads; ++head) {
      const auto first = log_sum_exp_.begin() + head * kRows;
      log_sum_exp.insert(log_sum_exp.end(), first + begin, first + end);
    }
    votes.Add(transformer(), 0,
              {{begin, end},
               queries_.data() + begin * transformer().query_width(),
               log_sum_exp.data(),
               kv_.data()});
  }

  void Vote(Votes& votes) {
    votes.Begin(0, transformer());
    Give(votes, 0, 256);
    Give(votes, 256, kPrompt);
    Give(votes, kPrompt, kRows);
  }

  TestModel model_;
  std::vector<float> queries_;      // (rows, query_width)
  std::vector<float> kv_;           // (rows, 2 * kv_width)
  std::vector<float> log_sum_exp_;  // (heads, rows)
};

TEST_F(VotesTest, AreSumsOfSoftmaxRows) {
  const std::vector<VotingRows> sets{{kPrompt, kRows}, {0, kPrompt},   {0, kRows},
                                     {250, kPrompt},   {299, kPrompt}, {302, 305}};
  Votes votes(1, kPrompt, kMasks);
  for (std::size_t i = 0; i < sets.size(); ++i) EXPECT_EQ(votes.SetOf(sets[i]), i);
  EXPECT_EQ(votes.SetOf(sets[3]), 3U);
  Vote(votes);
  const kernels::AttentionShape& shape = transformer().shape();
  const std::int64_t group = shape.heads / shape.kv_heads;
  for (std::size_t set = 0; set < sets.size(); ++set) {
    SCOPED_TRACE(set);
    const std::span<const float> scores = votes.Scores(0, set);
    ASSERT_EQ(std::ssize(scores), shape.kv_heads * kRows);
    for (std::int64_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
      for (std::int64_t key = 0; key < kRows; ++key) {
        double expected = 0;
        double bound = 0;
        for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
          for (std::int64_t row = sets[set].begin; row < sets[set].end; ++row) {
            const double logit = Logit(head, row, key);
            const double log_sum =
                static_cast<double>(log_sum_exp_[static_cast<std::size_t>(head * kRows + row)]);
            const double weight = std::exp(logit - log_sum);
            expected += weight;
            // Of the exponent: a dot product of unit normals, at most 8 sqrt(head_dim) in absolute
            // products after the scale, and the rounding of the two terms; of exp2 a few units.
            bound += weight * (static_cast<double>(shape.head_dim + 8) * 8 *
                                   std::sqrt(static_cast<double>(shape.head_dim)) +
                               2 * std::abs(log_sum) + 8);
          }
        }
        // And of adding up to 2 * 309 of them.
        const double unit = std::ldexp(1.0, -24);
        const double terms = static_cast<double>(group * (sets[set].end - sets[set].begin));
        EXPECT_NEAR(static_cast<double>(scores[static_cast<std::size_t>(kv_head * kRows + key)]),
                    expected, unit * (bound + terms * expected) + 1e-37);
      }
    }
  }
}

TEST_F(VotesTest, ASetDoesNotDependOnTheOthers) {
  Votes many(1, kPrompt, kMasks), alone(1, kPrompt, kMasks);
  for (const VotingRows rows : {VotingRows{0, kRows}, {290, kPrompt}, {250, kPrompt}}) {
    many.SetOf(rows);
  }
  const std::size_t last = alone.SetOf({250, kPrompt});
  Vote(many);
  Vote(alone);
  EXPECT_TRUE(std::ranges::equal(many.Scores(0, 3), alone.Scores(0, last)));
  EXPECT_TRUE(std::ranges::equal(many.Scores(0, 0), alone.Scores(0, 0)));
}

TEST_F(VotesTest, ThoseWhoDoNotVoteAreKeysOnly) {
  // The last four response rows are silent: the others' sums over the same keys.
  Votes some(1, kPrompt, kMasks - 4, 4), all(1, kPrompt, kMasks);
  const std::size_t front = all.SetOf({kPrompt, kRows - 4});
  Vote(all);
  some.Begin(0, transformer());
  Give(some, kPrompt, kRows - 4);
  EXPECT_TRUE(std::ranges::equal(some.Scores(0, 0), all.Scores(0, front)));
}

TEST_F(VotesTest, SayWhichRowsVote) {
  Votes votes(1, kPrompt, kMasks);
  EXPECT_FALSE(votes.AnyVotes(0, kPrompt));
  EXPECT_TRUE(votes.AnyVotes(kPrompt, kPrompt + 1));
  votes.SetOf({kPrompt, kPrompt});  // the voters of an empty prompt's window
  EXPECT_FALSE(votes.AnyVotes(0, kPrompt));
  votes.SetOf({250, kPrompt});
  EXPECT_TRUE(votes.AnyVotes(0, 256));
  EXPECT_FALSE(votes.AnyVotes(0, 250));
}

}  // namespace
}  // namespace maskkv::engine::votes_test
