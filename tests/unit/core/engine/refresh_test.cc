// SPDX-License-Identifier: Apache-2.0
//
// When an entry is refreshed, which rows a refresh has, what a decoder takes in the place of an
// entry, and that none of it reaches a neighbour or depends on threads, bit for bit.
#include "core/engine/refresh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

#include "core/engine/decode.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::refresh_test {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;

GenerateParams Refreshing(std::int64_t every, double floor) {
  GenerateParams params;
  params.gen_length = 12;
  params.block_length = 4;
  params.steps = 12;
  params.refresh_every = every;
  params.refresh_floor = floor;
  params.ignore_eos = true;
  return params;
}

std::vector<bool> DueAfter(RefreshSchedule schedule, const std::vector<double>& masses) {
  std::vector<bool> due;
  for (const double mass : masses) {
    schedule.StepTaken(mass);
    due.push_back(schedule.due());
    if (schedule.due()) schedule.Swapped();
  }
  return due;
}

TEST(RefreshSchedule, IsDueAfterSoManyStepsOverAnEntry) {
  const std::vector<double> masses(5, 0.5);
  EXPECT_THAT(DueAfter(RefreshSchedule(Refreshing(0, 0)), masses), Each(false));
  EXPECT_THAT(DueAfter(RefreshSchedule(Refreshing(1, 0)), masses), Each(true));
  EXPECT_THAT(DueAfter(RefreshSchedule(Refreshing(2, 0)), masses),
              ElementsAre(false, true, false, true, false));
  EXPECT_FALSE(RefreshSchedule(Refreshing(2, 0)).measures());
}

TEST(RefreshSchedule, IsDueWhenTheShareFallsBelowAPartOfTheFirstOne) {
  const RefreshSchedule schedule(Refreshing(0, 0.5));
  EXPECT_TRUE(schedule.measures());
  // Half of it is not below half of it; after a swap the first share is that of the next step.
  EXPECT_THAT(DueAfter(schedule, {0.8, 0.4, 0.9, 0.39, 0.3, 0.16, 0.14}),
              ElementsAre(false, false, false, true, false, false, true));
  EXPECT_THAT(DueAfter(RefreshSchedule(Refreshing(3, 0.5)), {0.8, 0.3, 0.3, 0.3, 0.3}),
              ElementsAre(false, true, false, false, true));
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(DueAfter(schedule, {0, 0, 0}), Each(false));
  EXPECT_THAT(DueAfter(schedule, {nan, 0.1, 0}), Each(false));
  EXPECT_THAT(DueAfter(schedule, {0.5, nan}), Each(false));
}

TEST(RefreshParams, AreChecked) {
  EXPECT_THAT(Validate(Refreshing(7, 1)), IsOk());
  EXPECT_THAT(Validate(Refreshing(-1, 0)), StatusIs(absl::StatusCode::kInvalidArgument,
                                                    HasSubstr("refresh_every: expected 0 to")));
  for (const double bad : {-0.1, 1.01, std::nan("")}) {
    EXPECT_THAT(
        Validate(Refreshing(0, bad)),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("refresh_floor: expected 0 to 1")));
  }
}

std::vector<Role> Roles(const std::vector<Row>& rows) {
  std::vector<Role> roles;
  for (const Row& row : rows) roles.push_back(row.role);
  return roles;
}

TEST(RefreshRows, CommittedTokensDoNotVote) {
  model::ModelConfig config;
  config.mask_id = 9;
  config.vocab_rows = 10;
  using enum Role;
  EXPECT_THAT(Roles(PromptThenResponse(std::vector{1, 2}, std::vector{9, 3, 9}, config)),
              ElementsAre(kPrompt, kPrompt, kResponse, kCommitted, kResponse));
  config.shifted_logits = true;
  EXPECT_THAT(Roles(PromptThenResponse(std::vector{1, 2}, std::vector{9, 3}, config)),
              ElementsAre(kPrompt, kResponse, kResponse, kCommitted));
  const std::vector<Row> rows = PromptThenResponse(std::vector{1, 2}, std::vector{3, 9}, config);
  EXPECT_THAT(Roles(rows), ElementsAre(kPrompt, kCommitted, kResponse, kResponse))
      << "a decided token's row predicts the mask behind it";
  EXPECT_THAT(ValidateRows(config, rows, 4), IsOk());
  EXPECT_THAT(ValidateRows(config, PromptThenResponse(std::vector{1}, std::vector{3}, config), 4),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("that votes, found none")));
  EXPECT_THAT(ValidateResponse(config, {}, 2), IsOk());
  EXPECT_THAT(ValidateResponse(config, std::vector{9, 3}, 2), IsOk());
  EXPECT_THAT(ValidateResponse(config, std::vector{9}, 2),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("as many ids as masks, 2")));
  EXPECT_THAT(
      ValidateResponse(config, std::vector{9, 10}, 2),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("position 1: expected an id")));
  EXPECT_THAT(ValidateResponse(config, std::vector{1, 3}, 2),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("at least one mask, id 9")));
}

// (step, position, token, confidence bits), in order.
using Trace = std::vector<std::tuple<std::int64_t, std::int64_t, std::int32_t, std::uint32_t>>;

class RefreshTest : public ::testing::TestWithParam<const char*> {
 protected:
  RefreshTest() {
    for (std::int32_t i = 0; i < 40; ++i) prompt_.push_back((7 * i) % 60);
  }

  static std::unique_ptr<TestModel> Load(int threads) {
    return std::make_unique<TestModel>(
        std::string(MASKKV_SOURCE_DIR) + "/tests/data/golden/checkpoints/" + GetParam(),
        kernels::DType::kF32, threads, 400);
  }

  std::shared_ptr<const KvView> Entry(TestModel& model, std::span<const std::int32_t> response,
                                      std::int64_t budget = 8) const {
    const std::vector<Row> rows = PromptThenResponse(prompt_, response, model.weights.config());
    PrefillRequest request;
    request.rows = rows;
    request.plan.layer_rule = LayerRule::kUniform;
    request.plan.budget = budget;
    auto entry = std::make_shared<HeapKvEntry>();
    EXPECT_THAT(Prefiller(model.transformer).Run(request, *entry), IsOk());
    return entry;
  }

  DecodeRequest Request(TestModel& model, const GenerateParams& params) const {
    DecodeRequest request;
    request.prompt = RecomputedTail(model.weights.config(), prompt_);
    request.prompt_tokens = std::ssize(prompt_);
    request.params = params;
    request.params.stop_ids = {model.weights.config().eos_id};
    const std::vector<std::int32_t> masks(static_cast<std::size_t>(params.gen_length),
                                          model.weights.config().mask_id);
    request.cache = Entry(model, masks);
    return request;
  }

  static void Record(const StepEvent& event, Trace& trace) {
    for (const Prediction& p : event.committed) {
      trace.emplace_back(event.step, p.position, p.token,
                         std::bit_cast<std::uint32_t>(p.confidence));
    }
  }

  // Every request of the batch to its end. A refresh that is due is made only when its request has
  // waited for `wait` steps of the others, or nobody else steps.
  std::map<RequestId, Trace> Run(TestModel& model, std::vector<DecodeRequest> requests,
                                 int wait = 0) const {
    Decoder decoder(model.transformer);
    std::map<RequestId, Trace> traces;
    std::map<RequestId, int> waited;
    for (DecodeRequest& request : requests) {
      const auto id = decoder.Add(std::move(request));
      EXPECT_THAT(id, IsOk());
      traces[*id] = {};
    }
    while (decoder.running() > 0 || !waited.empty()) {
      for (const StepEvent& event : decoder.Step()) {
        EXPECT_THAT(event.status, IsOk());
        EXPECT_FALSE(waited.contains(event.request)) << "no step while a refresh is due";
        Record(event, traces[event.request]);
        if (event.refresh_due) waited[event.request] = 0;
      }
      for (auto it = waited.begin(); it != waited.end();) {
        if (it->second++ < wait && decoder.running() > 0) {
          ++it;
          continue;
        }
        const Canvas& canvas = *decoder.Find(it->first);
        EXPECT_THAT(decoder.SwapCache(it->first, Entry(model, canvas.tokens())), IsOk());
        it = waited.erase(it);
      }
      decoder.CheckInvariants();
    }
    return traces;
  }

  std::vector<std::int32_t> prompt_;
};

TEST_P(RefreshTest, ARequestsTokensDependNeitherOnNeighboursNorOnWaitingNorOnThreads) {
  std::vector<GenerateParams> kinds{Refreshing(0, 0), Refreshing(1, 0), Refreshing(3, 0),
                                    Refreshing(0, 0.97), Refreshing(5, 0.9)};
  kinds[2].temperature = kinds[3].temperature = 0.8;
  const auto model = Load(1);
  std::vector<Trace> alone;
  for (const GenerateParams& params : kinds) {
    alone.push_back(Run(*model, {Request(*model, params)}).begin()->second);
    EXPECT_EQ(alone.back().size(), 12U);
  }
  EXPECT_NE(alone[0], alone[1]) << "a refresh changes what follows";
  for (const int threads : {2, 4}) {
    const auto other = Load(threads);
    for (const int wait : {0, 2}) {
      std::vector<DecodeRequest> batch;
      for (const GenerateParams& params : kinds) batch.push_back(Request(*other, params));
      std::size_t i = 0;
      for (const auto& [id, trace] : Run(*other, std::move(batch), wait)) {
        EXPECT_EQ(trace, alone[i]) << "request " << i << ", " << threads << " threads";
        ++i;
      }
    }
  }
}

TEST_P(RefreshTest, MeasuringTheShareChangesNoToken) {
  const auto model = Load(2);
  const Trace plain = Run(*model, {Request(*model, Refreshing(0, 0))}).begin()->second;
  DecodeRequest request = Request(*model, Refreshing(0, 1e-9));
  EXPECT_EQ(Run(*model, {request}).begin()->second, plain);
  request.provisional = true;
  Decoder decoder(model->transformer), other(model->transformer);
  ASSERT_THAT(decoder.Add(request), IsOk());
  request.provisional = false;
  ASSERT_THAT(other.Add(request), IsOk());
  while (decoder.running() > 0) {
    const StepEvent event = decoder.Step().front();
    ASSERT_TRUE(event.kept_mass.has_value());
    EXPECT_GT(*event.kept_mass, 0);
    EXPECT_LT(*event.kept_mass, 1);
    EXPECT_EQ(event.kept_mass, other.Step().front().kept_mass) << "provisional rows are not meant";
  }
}

TEST_P(RefreshTest, ARefreshOverMasksAloneIsTheFirstPrefill) {
  const auto model = Load(2);
  const std::vector<std::int32_t> masks(12, model->weights.config().mask_id);
  const auto refreshed = Entry(*model, masks);
  const std::vector<Row> rows = PromptThenMasks(prompt_, 12, model->weights.config());
  PrefillRequest request;
  request.rows = rows;
  request.plan.layer_rule = LayerRule::kUniform;
  request.plan.budget = 8;
  HeapKvEntry first;
  ASSERT_THAT(Prefiller(model->transformer).Run(request, first), IsOk());
  for (std::int64_t layer = 0; layer < first.shape().layers; ++layer) {
    for (std::int64_t head = 0; head < first.shape().kv_heads; ++head) {
      EXPECT_TRUE(
          std::ranges::equal(first.Positions(layer, head), refreshed->Positions(layer, head)));
    }
  }
}

TEST_P(RefreshTest, AnEntryThatDoesNotFitIsRefusedAndNothingChanges) {
  const auto model = Load(1);
  Decoder decoder(model->transformer);
  MASKKV_ASSERT_OK_AND_ASSIGN(const RequestId id, decoder.Add(Request(*model, Refreshing(1, 0))));
  ASSERT_TRUE(decoder.Step().front().refresh_due);
  using absl::StatusCode;
  EXPECT_THAT(decoder.SwapCache(id, nullptr),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("found none")));
  EXPECT_THAT(decoder.SwapCache(id + 1, nullptr),
              StatusIs(StatusCode::kNotFound, HasSubstr("request")));
  HeapKvEntry other;
  const EntryShape shape{.layers = 1, .kv_heads = 1, .head_dim = 1};
  ASSERT_THAT(other.Begin(shape, 0), IsOk());
  ASSERT_THAT(other.AllocateLayer(0, std::vector<std::int64_t>{0}), IsOk());
  ASSERT_THAT(other.Finish(), IsOk());
  EXPECT_THAT(decoder.SwapCache(id, std::make_shared<HeapKvEntry>(std::move(other))),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("cache: expected an entry")));
  EXPECT_EQ(decoder.running(), 0);
  DecodeRequest whole = Request(*model, Refreshing(2, 0));
  whole.cache = nullptr;
  whole.prompt = prompt_;
  EXPECT_THAT(decoder.Add(whole),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("expected 0 without a cache")));
  whole.params.refresh_every = 0;
  MASKKV_ASSERT_OK_AND_ASSIGN(const RequestId uncached, decoder.Add(whole));
  const auto entry = Entry(*model, decoder.Find(id)->tokens());
  EXPECT_THAT(decoder.SwapCache(uncached, entry),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("a request without a cache")));
  EXPECT_THAT(decoder.SwapCache(id, entry), IsOk());
  EXPECT_EQ(decoder.running(), 2);
}

INSTANTIATE_TEST_SUITE_P(Models, RefreshTest, ::testing::Values("gqa", "dream", "moe"),
                         [](const auto& model) { return model.param; });

}  // namespace
}  // namespace maskkv::engine::refresh_test
