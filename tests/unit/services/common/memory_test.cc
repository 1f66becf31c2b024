// SPDX-License-Identifier: Apache-2.0
#include "services/common/memory.h"

#include <gtest/gtest.h>

#include <string>

#include "core/base/error.h"
#include "tests/support/status_matchers.h"

namespace maskkv::services {
namespace {

// LLaDA-8B.
model::ModelConfig Llada() {
  model::ModelConfig config;
  config.hidden = 4096;
  config.layers = 32;
  config.kv_heads = 32;
  config.head_dim = 128;
  return config;
}

// Rotation table, hidden state, K and V of a layer: (128 + 4096 + 2 * 4096) floats a position.
constexpr std::int64_t kPositions = 131'072;
constexpr std::int64_t kNeeded = kPositions * (128 + 4096 + 2 * 4096) * 4;

TEST(CheckFitsTest, APromptOf128kFitsWhereItsBytesAre) {
  EXPECT_THAT(CheckFits(Llada(), kPositions, 1, kNeeded), testing::IsOk());
  EXPECT_THAT(CheckFits(Llada(), 0, 32, 0), testing::IsOk());
}

TEST(CheckFitsTest, ARefusalSaysWhatIsNeededThereAndMissing) {
  const absl::Status status = CheckFits(Llada(), kPositions, 1, kNeeded - 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(status), "OUT_OF_MEMORY");
  EXPECT_EQ(std::string(status.message()),
            "memory: expected at least 6509559808 bytes for a prompt and answer of 131072 "
            "positions, found 6509559807 available: 1 missing");
}

TEST(CheckFitsTest, EveryLayersKeysAndValuesCountWhereTheyAreHeldAtOnce) {
  const std::int64_t all = kPositions * (128 + 4096 + 32 * 2 * 4096) * 4;
  EXPECT_THAT(CheckFits(Llada(), kPositions, 32, all), testing::IsOk());
  EXPECT_EQ(ErrorReason(CheckFits(Llada(), kPositions, 32, all - 1)), "OUT_OF_MEMORY");
}

TEST(CheckFitsTest, TheLargestShapeIsNoOverflow) {
  model::ModelConfig config;
  config.hidden = model::ModelConfig::kMaxHidden;
  config.layers = model::ModelConfig::kMaxLayers;
  config.kv_heads = 1;
  config.head_dim = model::ModelConfig::kMaxHidden;
  EXPECT_EQ(
      ErrorReason(CheckFits(config, model::ModelConfig::kMaxSequence, config.layers, 1 << 30)),
      "OUT_OF_MEMORY");
}

}  // namespace
}  // namespace maskkv::services
