// SPDX-License-Identifier: Apache-2.0
#include "services/budget/plan_keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "core/base/file.h"
#include "services/budget/state_file.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_folder.h"

namespace maskkv::budget_service {
namespace {

using maskkv::testing::IsOk;
using maskkv::testing::TempFolder;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

budget::Observation FullCache() {
  return {.reporter = "cache",
          .period_seconds = 5,
          .seen = budget::CacheObservation{1000, 1000, 1000, 0, 0}};
}

class PlanKeeperTest : public ::testing::Test {
 protected:
  KeeperOptions Options() const {
    return {.model = {.fingerprint = "", .importance = {}, .layers = 2, .kv_heads = 1},
            .policy = {},
            .state_file = folder_.File("state/state.json"),
            .audit_file = folder_.File("audit.jsonl")};
  }
  void SetUp() override { std::filesystem::create_directory(folder_.File("state")); }

  std::unique_ptr<PlanKeeper> Open() {
    registry_ = std::make_unique<telemetry::Registry>();
    auto keeper = PlanKeeper::Open(Options(), clock_, *registry_);
    EXPECT_THAT(keeper, IsOk());
    return *std::move(keeper);
  }
  std::string Audit() const { return *ReadFile(Options().audit_file, 1 << 20); }

  TempFolder folder_;
  ManualClock clock_;
  std::unique_ptr<telemetry::Registry> registry_;
};

budget::Policy With(std::int64_t budget) {
  budget::Policy policy;
  policy.budget = budget;
  return policy;
}

TEST_F(PlanKeeperTest, ANewPlanIsOnTheDeviceBeforeItIsSeen) {
  const auto keeper = Open();
  EXPECT_EQ((*LoadState(Options().state_file))->plan.generation, 1U);
  MASKKV_ASSERT_OK_AND_ASSIGN(const auto plan, keeper->SetPolicy(With(100), 1, {}));
  EXPECT_EQ(plan->generation, 2U);
  const auto saved = *LoadState(Options().state_file);
  EXPECT_EQ(saved->plan, *plan);
  EXPECT_EQ(saved->policy, With(100));
  EXPECT_EQ(keeper->Current().policy, With(100));
}

TEST_F(PlanKeeperTest, RestartsKeepPolicyPlanAndGeneration) {
  {
    const auto keeper = Open();
    ASSERT_THAT(keeper->SetPolicy(With(100), std::nullopt, {}), IsOk());
    clock_.Advance(seconds(20));
    ASSERT_THAT(keeper->Observe(FullCache()), IsOk());
    keeper->Tick();
    EXPECT_EQ(keeper->Current().plan->generation, 3U);
    EXPECT_EQ(keeper->Current().plan->cause, "pressure");
  }
  const auto keeper = Open();
  EXPECT_EQ(keeper->Current().plan->generation, 3U);
  EXPECT_LT(keeper->Current().plan->budget, 100);
  EXPECT_EQ(keeper->Current().policy, With(100)) << "what was saved wins over the flags";
}

TEST_F(PlanKeeperTest, AnExpectedGenerationThatHasMovedIsRefusedAndAudited) {
  const auto keeper = Open();
  const auto status = keeper->SetPolicy(With(100), 9, {"acme", "unix", "try"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ErrorReason(status), "GENERATION_MOVED");
  EXPECT_EQ(keeper->Current().plan->generation, 1U);
  EXPECT_THAT(Audit(), HasSubstr(R"("result":"refused","tenant":"acme","peer":"unix")"));
}

TEST_F(PlanKeeperTest, WhereTheStateCannotBeWrittenTheOldPlanStaysInForce) {
  const auto keeper = Open();
  std::filesystem::rename(folder_.File("state"), folder_.File("elsewhere"));
  const auto status = keeper->SetPolicy(With(100), std::nullopt, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ErrorReason(status), "STATE_NOT_WRITTEN");
  ASSERT_THAT(keeper->Observe(FullCache()), IsOk());
  keeper->Tick();
  keeper->Tick();
  EXPECT_EQ(keeper->Current().plan->generation, 1U);
  EXPECT_EQ(keeper->Current().policy, budget::Policy{});
  EXPECT_THAT(Audit(), HasSubstr(R"("result":"failed")"));
  EXPECT_THAT(registry_->Scrape(), HasSubstr("maskkv_budget_updates_total{result=\"failed\"} 3\n"));
  // When it can be written again the loop's wish is still there.
  std::filesystem::rename(folder_.File("elsewhere"), folder_.File("state"));
  keeper->Tick();
  EXPECT_EQ(keeper->Current().plan->generation, 2U);
}

TEST_F(PlanKeeperTest, ACorruptStateEndsTheStart) {
  ASSERT_THAT(WriteFileAtomically(Options().state_file, "{}"), IsOk());
  telemetry::Registry registry;
  EXPECT_THAT(PlanKeeper::Open(Options(), clock_, registry),
              maskkv::testing::StatusIs(absl::StatusCode::kInvalidArgument,
                                        HasSubstr("state.json: field format")));
  EXPECT_EQ(*ReadFile(Options().state_file, 10), "{}") << "it is left for people to look at";
}

TEST_F(PlanKeeperTest, TheSamePolicyTwiceIsOneGenerationAndTwoAuditLines) {
  const auto keeper = Open();
  ASSERT_THAT(keeper->SetPolicy(With(100), std::nullopt, {}), IsOk());
  MASKKV_ASSERT_OK_AND_ASSIGN(const auto plan, keeper->SetPolicy(With(100), std::nullopt, {}));
  EXPECT_EQ(plan->generation, 2U);
  EXPECT_THAT(Audit(), HasSubstr(R"("result":"unchanged")"));
}

TEST_F(PlanKeeperTest, WaitersGetTheNewestPlanAndEndWithStop) {
  const auto keeper = Open();
  EXPECT_EQ(keeper->WaitForOther(0, milliseconds(0))->generation, 1U);
  EXPECT_EQ(keeper->WaitForOther(1, milliseconds(0)), nullptr);
  std::thread waiter([&] {
    std::uint64_t seen = 1;
    while (seen < 20) {
      const auto plan = keeper->WaitForOther(seen, seconds(60));
      ASSERT_NE(plan, nullptr);
      ASSERT_GT(plan->generation, seen);
      seen = plan->generation;
    }
    EXPECT_EQ(keeper->WaitForOther(seen, seconds(60)), nullptr);
  });
  for (std::int64_t budget = 101; budget < 120; ++budget) {
    ASSERT_THAT(keeper->SetPolicy(With(budget), std::nullopt, {}), IsOk());
  }
  while (keeper->Current().plan->generation < 20) std::this_thread::yield();
  keeper->Stop();
  waiter.join();
  EXPECT_EQ(keeper->WaitForOther(0, seconds(60)), nullptr);
}

TEST_F(PlanKeeperTest, ThreadsMayDoEverythingAtOnce) {
  const auto keeper = Open();
  std::atomic<bool> done = false;
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    while (!done) {
      clock_.Advance(milliseconds(100));
      keeper->Tick();
    }
  });
  threads.emplace_back([&] {
    while (!done) EXPECT_THAT(keeper->Observe(FullCache()), IsOk());
  });
  threads.emplace_back([&] {
    std::uint64_t last = 0;
    while (!done) {
      const auto in_force = keeper->Current();
      EXPECT_GE(in_force.plan->generation, last);
      EXPECT_GE(in_force.plan->budget, in_force.policy.min_budget);
      last = in_force.plan->generation;
    }
  });
  for (std::int64_t i = 0; i < 50; ++i) {
    ASSERT_THAT(keeper->SetPolicy(With(64 + i), std::nullopt, {}), IsOk());
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(*LoadState(Options().state_file),
            (SavedState{keeper->Current().policy, *keeper->Current().plan}));
}

}  // namespace
}  // namespace maskkv::budget_service
