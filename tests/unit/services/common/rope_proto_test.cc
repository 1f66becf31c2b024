// SPDX-License-Identifier: Apache-2.0
#include "services/common/rope_proto.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/base/error.h"
#include "maskkv/v1/common.pb.h"
#include "tests/support/status_matchers.h"

namespace maskkv::services {
namespace {

model::ModelConfig Llada() {
  model::ModelConfig config;
  config.rope_theta = 5e5;
  config.head_dim = 128;
  config.max_sequence = 4096;
  return config;
}

TEST(RopeScaleOfTest, TakesTheRuleThatIsSet) {
  EXPECT_EQ(*RopeScaleOf(nullptr, Llada(), 16'384), 1);
  v1::RopeScaling scaling;
  scaling.mutable_longllada();
  EXPECT_EQ(*RopeScaleOf(&scaling, Llada(), 16'384), 14);
  EXPECT_EQ(*RopeScaleOf(&scaling, Llada(), 4096), 1);
  scaling.set_factor(2.5);
  EXPECT_EQ(*RopeScaleOf(&scaling, Llada(), 4096), 2.5);
}

TEST(RopeScaleOfTest, RefusesWhatIsNoFactorWithOneLine) {
  v1::RopeScaling scaling;
  const auto refusal = [&](const model::ModelConfig& config) {
    const absl::Status status = RopeScaleOf(&scaling, config, 8192).status();
    EXPECT_EQ(ErrorReason(status), "BAD_ROPE_SCALING");
    return std::string(status.message());
  };
  EXPECT_EQ(refusal(Llada()), "rope_scaling: expected longllada or factor, found neither");
  for (const double factor : {0.0, 0.5, -3.0, std::nan(""), HUGE_VAL}) {
    scaling.set_factor(factor);
    EXPECT_TRUE(refusal(Llada()).starts_with("rope_scale: expected a number from 1")) << factor;
  }
  scaling.mutable_longllada();
  model::ModelConfig barely_trained = Llada();
  barely_trained.max_sequence = 6;
  EXPECT_EQ(refusal(barely_trained), "trained positions: expected at least 7, found 6");
}

}  // namespace
}  // namespace maskkv::services
