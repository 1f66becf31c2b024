// SPDX-License-Identifier: Apache-2.0
//
// LongLLaDA's factor: published values, an independent computation, its shape, refusals.
#include "core/model/rope_scaling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <tuple>

#include "tests/support/status_matchers.h"

namespace maskkv::model::rope_scaling_test {
namespace {

using maskkv::testing::StatusIs;
using ::testing::HasSubstr;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

ModelConfig Llada() {
  ModelConfig config;
  config.rope_theta = 5e5;
  config.head_dim = 128;
  config.max_sequence = 4096;
  return config;
}

ModelConfig Dream() {
  ModelConfig config;
  config.family = ModelFamily::kDream;
  config.rope_theta = 1e6;
  config.head_dim = 128;
  config.max_sequence = 131072;  // as published: that of the model it was initialised from
  return config;
}

double LongLlada(const ModelConfig& config, std::int64_t positions) {
  return *ResolveRopeScale({RopeScaling::Rule::kLongLlada}, config, positions);
}

TEST(RopeScalingTest, GivesThePublishedFactors) {
  for (const auto& [thousands, factor] : {std::pair{4, 1}, {8, 4}, {16, 14}, {24, 31}, {32, 55}}) {
    EXPECT_EQ(LongLlada(Llada(), 1024 * thousands), factor) << thousands << "k";
  }
  for (const auto& [thousands, factor] : {std::pair{1, 1}, {2, 1}, {4, 5}, {8, 25}, {16, 126}}) {
    EXPECT_EQ(LongLlada(Dream(), 1024 * thousands), factor) << thousands << "k";
  }
}

// The smallest integer at least theta^-1 x^(d / d_crit), without powers: by logarithms in long
// double, for every length whose value is not within their error of an integer.
TEST(RopeScalingTest, EqualsAComputationByLogarithms) {
  std::int64_t compared = 0;
  for (const auto& [theta, width, trained] :
       {std::tuple{5e5, 128, 4096}, {1e6, 128, 2048}, {1e4, 64, 512}, {5e5, 6, 64}}) {
    const long double circle = 2 * std::acos(-1.0L);
    long double critical = 2;
    while (critical / width * std::log((long double)theta) < std::log(trained / circle)) {
      critical += 2;
    }
    for (std::int64_t length = trained + 1; length <= 1 << 17; length += 997) {
      const long double exact =
          std::exp(width / critical * std::log(length / circle) - std::log((long double)theta));
      // A double's power of this size errs by less than 1e-13 of it.
      if (std::abs(exact - std::round(exact)) < 1e-13L * exact) continue;
      ++compared;
      EXPECT_EQ(*LongLladaFactor(theta, width, trained, length), std::ceil(exact)) << length;
    }
  }
  EXPECT_GT(compared, 500);
}

TEST(RopeScalingTest, NeverFallsAndIsOneUpToTheTrainedLength) {
  double before = 1;
  for (std::int64_t length = 0; length <= 1 << 17; length += 61) {
    const double factor = LongLlada(Llada(), length);
    EXPECT_GE(factor, before) << length;
    EXPECT_EQ(factor, std::ceil(factor));
    EXPECT_TRUE(length > 4096 || factor == 1) << length;
    before = factor;
  }
  EXPECT_GT(before, 55);
}

TEST(RopeScalingTest, TakesTheOtherRulesAsTheySay) {
  EXPECT_EQ(*ResolveRopeScale({}, Llada(), 1 << 20), 1);
  EXPECT_EQ(*ResolveRopeScale({RopeScaling::Rule::kFactor, 2.5}, Llada(), 10), 2.5);
  EXPECT_EQ(TrainedPositions(Llada()), 4096);
  EXPECT_EQ(TrainedPositions(Dream()), 2048);
}

TEST(RopeScalingTest, RefusesWhatIsNoFactor) {
  for (const double factor : {0.0, -1.0, 0.999, kNaN, kInfinity, 1e308}) {
    EXPECT_THAT(ResolveRopeScale({RopeScaling::Rule::kFactor, factor}, Llada(), 10),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rope_scale: expected")))
        << factor;
  }
}

TEST(RopeScalingTest, RefusesWhatHasNoFactor) {
  const auto refuses = [](double theta, std::int64_t head_dim, std::int64_t trained,
                          std::int64_t length, const char* what) {
    EXPECT_THAT(LongLladaFactor(theta, head_dim, trained, length),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(what)));
  };
  for (const double theta : {1.0, 0.0, -5e5, kNaN, kInfinity}) {
    refuses(theta, 128, 4096, 8192, "rope_theta: expected");
  }
  for (const std::int64_t head_dim : {-2, 0, 1, 7}) {
    refuses(5e5, head_dim, 4096, 8192, "head_dim: expected");
  }
  for (const std::int64_t trained : {-1, 0, 6}) {
    refuses(5e5, 128, trained, 8192, "trained positions: expected");
  }
  refuses(5e5, 128, 4096, -1, "positions: expected");
  refuses(1e12, 128, 7, 1 << 24, "rope_scale: expected");  // (1.7e7 / 2 pi)^64
}

TEST(RopeScalingTest, NamesEveryFactorByItsOwnText) {
  EXPECT_EQ(RopeScaleText(1), "");
  EXPECT_EQ(RopeScaleText(14), "14");
  EXPECT_EQ(RopeScaleText(2.5), "2.5");
  EXPECT_NE(RopeScaleText(1 + 0x1p-52), RopeScaleText(1 + 0x1p-51));
}

}  // namespace
}  // namespace maskkv::model::rope_scaling_test
