// SPDX-License-Identifier: Apache-2.0
#include "core/budget/controller.h"

#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/seed.h"

namespace maskkv::budget {
namespace {

using std::chrono::seconds;
using ::testing::IsEmpty;

const std::string kModel(64, 'a');

PlannedModel Model() {
  return {.fingerprint = kModel, .importance = {0.4, 0.1, 0.1, 0.3}, .layers = 4, .kv_heads = 2};
}

Controller Make(const ManualClock& clock, const Policy& policy = {},
                const PlannedModel& model = Model()) {
  auto controller = Controller::Create(model, policy, clock);
  EXPECT_TRUE(controller.ok()) << controller.status();
  return *std::move(controller);
}

Observation Cache(double usage) {
  CacheObservation seen;
  seen.capacity_bytes = 1000;
  seen.leased_bytes = static_cast<std::uint64_t>(usage * 1000);
  return {.reporter = "cache", .period_seconds = 5, .seen = seen};
}

Observation Prefill(std::int64_t n, double mass, std::vector<double> layer_mass = {},
                    std::vector<double> preference = {}) {
  PrefillObservation seen;
  seen.model_fingerprint = kModel;
  seen.prefills = n;
  seen.mass = mass;
  seen.layer_mass = std::move(layer_mass);
  seen.preference = std::move(preference);
  return {.reporter = "prefill", .period_seconds = 5, .seen = seen};
}

TEST(ControllerTest, StartsWithThePolicysAmountAndTheProfilesImportance) {
  ManualClock clock;
  const Controller controller = Make(clock);
  const Plan& plan = controller.Current();
  EXPECT_EQ(plan.generation, 1U);
  EXPECT_EQ(plan.model_fingerprint, kModel);
  EXPECT_EQ(plan.budget, 64);
  EXPECT_EQ(plan.max_budget, 512);
  EXPECT_EQ(plan.importance, Model().importance);
  EXPECT_THAT(plan.layer_weights, IsEmpty());
  EXPECT_THAT(plan.head_rates, IsEmpty());
  EXPECT_EQ(plan.cause, "start");
  controller.CheckInvariants();
}

TEST(ControllerTest, RefusesModelsAndPoliciesThatAreNone) {
  ManualClock clock;
  Policy policy;
  policy.alpha = 2;
  EXPECT_EQ(ErrorReason(Controller::Create(Model(), policy, clock).status()), "BAD_POLICY");
  PlannedModel model = Model();
  model.layers = 5;
  EXPECT_EQ(ErrorReason(Controller::Create(model, {}, clock).status()), "BAD_PLAN");
  model = Model();
  model.fingerprint = "calibration of mine";
  EXPECT_EQ(ErrorReason(Controller::Create(model, {}, clock).status()), "BAD_PLAN");
}

TEST(ControllerTest, TheSamePolicyTwiceMakesOneGeneration) {
  ManualClock clock;
  Controller controller = Make(clock);
  Policy policy;
  policy.budget = 100;
  EXPECT_TRUE(*controller.SetPolicy(policy));
  EXPECT_EQ(controller.Current().generation, 2U);
  EXPECT_EQ(controller.Current().budget, 100);
  EXPECT_EQ(controller.Current().cause, "operator");
  EXPECT_FALSE(*controller.SetPolicy(policy));
  EXPECT_EQ(controller.Current().generation, 2U);
  policy.beta = 7;
  EXPECT_FALSE(controller.SetPolicy(policy).ok());
  EXPECT_EQ(controller.Current().generation, 2U);
  controller.CheckInvariants();
}

TEST(ControllerTest, PressureMovesTheAmountAndTheNextPolicyKeepsIt) {
  ManualClock clock;
  Controller controller = Make(clock);
  ASSERT_TRUE(controller.Observe(Cache(1)).ok());
  EXPECT_TRUE(controller.Tick());
  EXPECT_FALSE(controller.Tick());
  EXPECT_EQ(controller.Current().generation, 2U);
  EXPECT_EQ(controller.Current().budget, 55);
  EXPECT_EQ(controller.Current().cause, "pressure");
  Policy policy;
  policy.target_mass = 0.8;
  ASSERT_TRUE(*controller.SetPolicy(policy));
  EXPECT_EQ(controller.Current().budget, 55) << "the loop goes on from where it is";
  policy.min_budget = 60;
  ASSERT_TRUE(*controller.SetPolicy(policy));
  EXPECT_EQ(controller.Current().budget, 60);
  policy.adapt_budget = false;
  ASSERT_TRUE(*controller.SetPolicy(policy));
  EXPECT_EQ(controller.Current().budget, 64) << "fixed is the operator's amount";
  clock.Advance(seconds(60));
  ASSERT_TRUE(controller.Observe(Cache(1)).ok());
  EXPECT_FALSE(controller.Tick());
}

TEST(ControllerTest, UnderACoveragePolicyTheMostPairsMove) {
  ManualClock clock;
  Policy policy;
  policy.coverage = 0.95;
  Controller controller = Make(clock, policy);
  EXPECT_EQ(controller.Current().coverage, 0.95);
  EXPECT_EQ(controller.Current().max_budget, 512);
  ASSERT_TRUE(controller.Observe(Cache(1)).ok());
  EXPECT_TRUE(controller.Tick());
  EXPECT_EQ(controller.Current().max_budget, 436);
  EXPECT_EQ(controller.Current().coverage, 0.95);
  controller.CheckInvariants();
  // Back to a count.
  ASSERT_TRUE(*controller.SetPolicy(Policy{}));
  EXPECT_EQ(controller.Current().coverage, 0);
  EXPECT_EQ(controller.Current().budget, 64);
  EXPECT_EQ(controller.Current().max_budget, 512);
  controller.CheckInvariants();
}

TEST(ControllerTest, ReportsOfAnotherModelOrShapeAreRefusedAndChangeNothing) {
  ManualClock clock;
  Controller controller = Make(clock);
  Observation other = Prefill(100, 0.1);
  std::get<PrefillObservation>(other.seen).model_fingerprint = std::string(64, 'b');
  EXPECT_EQ(ErrorReason(controller.Observe(other)), "MODEL_MISMATCH");
  EXPECT_EQ(ErrorReason(controller.Observe(Prefill(1, 0.5, {0.1, 0.2}))), "BAD_REPORT");
  EXPECT_EQ(ErrorReason(controller.Observe(Prefill(1, 0.5, {}, std::vector(7, 0.1)))),
            "BAD_REPORT");
  EXPECT_EQ(ErrorReason(controller.Observe(Prefill(1, std::nan("")))), "BAD_REPORT");
  EXPECT_EQ(controller.reporters(), 0U);
  EXPECT_FALSE(controller.Input().prefill_heard);
}

TEST(ControllerTest, SharesMoveAndEndWithTheirAdaptation) {
  ManualClock clock;
  Controller controller = Make(clock);
  std::vector<double> preference(8, 0.5);
  preference[1] = 0.1;
  ASSERT_TRUE(controller.Observe(Prefill(64, 0.9, {0.9, 0.5, 0.9, 0.9}, preference)).ok());
  clock.Advance(seconds(60));
  ASSERT_TRUE(controller.Tick());
  EXPECT_EQ(controller.Current().cause, "weights");
  EXPECT_EQ(controller.Current().layer_weights.size(), 4U);
  EXPECT_EQ(controller.Current().head_rates.size(), 8U);
  controller.CheckInvariants();
  Policy policy;
  policy.alpha = 0.2;
  ASSERT_TRUE(*controller.SetPolicy(policy));
  EXPECT_EQ(controller.Current().layer_weights.size(), 4U);
  EXPECT_THAT(controller.Current().head_rates, IsEmpty()) << "their bounds are another alpha's";
  controller.CheckInvariants();
  policy.adapt_shares = false;
  ASSERT_TRUE(*controller.SetPolicy(policy));
  EXPECT_THAT(controller.Current().layer_weights, IsEmpty());
}

TEST(ControllerTest, ARestoredControllerKeepsGenerationAmountAndShares) {
  ManualClock clock;
  Controller first = Make(clock);
  ASSERT_TRUE(first.Observe(Cache(1)).ok());
  ASSERT_TRUE(first.Tick());
  ASSERT_TRUE(first.Observe(Prefill(64, 0.9, {0.9, 0.5, 0.9, 0.9})).ok());
  clock.Advance(seconds(61));
  ASSERT_TRUE(first.Tick());
  ASSERT_TRUE(first.Tick());
  ASSERT_EQ(first.Current().layer_weights.size(), 4U);
  const auto second = Controller::Restore(Model(), first.policy(), first.Current(), clock);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->Current(), first.Current());
  second->CheckInvariants();
}

TEST(ControllerTest, ARestoreForAnotherModelOrPolicyIsTheNextGeneration) {
  ManualClock clock;
  Controller first = Make(clock);
  ASSERT_TRUE(first.Observe(Prefill(64, 0.9, {0.9, 0.5, 0.9, 0.9})).ok());
  clock.Advance(seconds(61));
  ASSERT_TRUE(first.Tick());
  PlannedModel other = Model();
  other.fingerprint = std::string(64, 'b');
  const auto second = Controller::Restore(other, first.policy(), first.Current(), clock);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->Current().generation, first.Current().generation + 1);
  EXPECT_EQ(second->Current().cause, "start");
  EXPECT_THAT(second->Current().layer_weights, IsEmpty());
  Policy narrow;
  narrow.budget = narrow.min_budget = narrow.max_budget = 40;
  const auto third = Controller::Restore(Model(), narrow, first.Current(), clock);
  ASSERT_TRUE(third.ok());
  EXPECT_EQ(third->Current().budget, 40);
  third->CheckInvariants();
  Plan bad = first.Current();
  bad.generation = 0;
  EXPECT_FALSE(Controller::Restore(Model(), narrow, bad, clock).ok());
}

TEST(ControllerTest, ACopyIsATransaction) {
  ManualClock clock;
  Controller controller = Make(clock);
  ASSERT_TRUE(controller.Observe(Cache(1)).ok());
  Controller next = controller;
  ASSERT_TRUE(next.Tick());
  EXPECT_EQ(controller.Current().generation, 1U);
  controller = next;
  EXPECT_EQ(controller.Current().generation, 2U);
}

// Any order of reports, policies, silences and restarts: limits hold, every number is finite, the
// generation counts changes one by one, the amount keeps its rate limit.
class RandomRun {
 public:
  explicit RandomRun(std::uint64_t seed) : random_(seed), controller_(Make(clock_)) {}

  void Step() {
    const Plan before = controller_.Current();
    bool changed = false;
    bool by_loop = false;
    switch (random_() % 16) {
      case 0:
        if (const auto set = controller_.SetPolicy(AnyPolicy()); set.ok()) changed = *set;
        break;
      case 1: {
        const auto restored = Controller::Restore(Model(), controller_.policy(), before, clock_);
        ASSERT_TRUE(restored.ok()) << restored.status();
        controller_ = *restored;
        ASSERT_EQ(controller_.Current(), before);
        break;
      }
      case 2:
      case 3:
      case 4:
      case 5:
      case 6:
        changed = by_loop = controller_.Tick();
        break;
      default:
        controller_.Observe(AnyObservation()).IgnoreError();
    }
    controller_.CheckInvariants();
    const Plan& after = controller_.Current();
    ASSERT_EQ(after.generation, before.generation + (changed ? 1 : 0));
    if (!changed) {
      ASSERT_EQ(after, before);
    } else if (by_loop && after.cause != "weights") {
      CheckLoopStep(before, after);
    }
    clock_.Advance(std::chrono::milliseconds(random_() % (random_() % 50 == 0 ? 200'000 : 4'000)));
  }

 private:
  void CheckLoopStep(const Plan& before, const Plan& after) {
    const auto from = static_cast<double>(before.coverage > 0 ? before.max_budget : before.budget);
    const auto to = static_cast<double>(after.coverage > 0 ? after.max_budget : after.budget);
    ASSERT_NE(from, to);
    ASSERT_LE(std::abs(to - from), std::max(1.0, 0.25 * from));
    if (last_loop_step_) {
      ASSERT_GE(clock_.Now() - *last_loop_step_, Tuning{}.interval);
    }
    last_loop_step_ = clock_.Now();
  }

  double Unit() { return std::uniform_real_distribution<double>(0, 1)(random_); }

  double AnyShare() {
    switch (random_() % 60) {
      case 0:
        return std::nan("");
      case 1:
        return std::numeric_limits<double>::infinity();
      case 2:
        return -1e-300;
      case 3:
        return 1;
      case 4:
        return 0;
      default:
        return Unit();
    }
  }

  std::int64_t AnyCount() {
    switch (random_() % 40) {
      case 0:
        return -1;
      case 1:
        return std::numeric_limits<std::int64_t>::max();
      case 2:
        return 1'000'000'000;
      default:
        return static_cast<std::int64_t>(random_() % 20);
    }
  }

  std::vector<double> AnyShares(std::size_t n) {
    std::vector<double> values(random_() % 20 == 0 ? random_() % 10 : n);
    const bool mean = random_() % 2 == 0;
    for (double& value : values) value = mean ? Unit() : AnyShare();
    return values;
  }

  Policy AnyPolicy() {
    Policy policy;
    policy.min_budget = static_cast<std::int64_t>(random_() % 40);
    policy.max_budget = policy.min_budget + static_cast<std::int64_t>(random_() % 600);
    policy.budget = policy.min_budget + static_cast<std::int64_t>(random_() % 600);
    if (random_() % 3 == 0) policy.coverage = AnyShare();
    if (random_() % 2 == 0) policy.alpha = AnyShare();
    policy.beta = AnyShare();
    policy.adapt_budget = random_() % 5 != 0;
    policy.adapt_shares = random_() % 5 != 0;
    policy.target_mass = AnyShare();
    return policy;
  }

  Observation AnyObservation() {
    Observation observation;
    observation.reporter = "r" + std::to_string(random_() % 6);
    observation.period_seconds = random_() % 20 == 0 ? AnyShare() * 4000 : 5;
    const double queue_seconds = random_() % 4 == 0 ? Unit() * 20 : AnyShare();
    if (random_() % 3 == 0) {
      observation.seen = DecodeObservation{queue_seconds, AnyCount(), AnyCount()};
    } else if (random_() % 2 == 0) {
      const std::uint64_t capacity = random_() % 50 == 0 ? 0 : 1 + random_() % 1000;
      observation.seen =
          CacheObservation{capacity, random_() % 1000, random_() % 1200, AnyCount(), AnyCount()};
    } else {
      observation.seen = PrefillObservation{.model_fingerprint = random_() % 30 == 0 ? "" : kModel,
                                            .prefills = AnyCount(),
                                            .mass = AnyShare(),
                                            .layer_mass = AnyShares(4),
                                            .preference = AnyShares(8),
                                            .queue_seconds = queue_seconds,
                                            .waiting = AnyCount()};
    }
    return observation;
  }

  std::mt19937_64 random_;
  ManualClock clock_;
  Controller controller_;
  std::optional<TimePoint> last_loop_step_;
};

TEST(ControllerTest, HoldsItsInvariantsForAnyObservations) {
  for (std::uint64_t run = 0; run < 20; ++run) {
    RandomRun steps(testing::Seed() + run);
    for (int i = 0; i < 10'000; ++i) {
      ASSERT_NO_FATAL_FAILURE(steps.Step()) << "run " << run << ", step " << i;
    }
  }
}

}  // namespace
}  // namespace maskkv::budget
