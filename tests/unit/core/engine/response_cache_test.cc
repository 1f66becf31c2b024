// SPDX-License-Identifier: Apache-2.0
//
// The response feature cache: what it chooses, that recomputing every row is the plain decoding bit
// for bit, when forwards are whole, and what it holds. Whole decodings: golden_response_test.cc;
// neighbours and threads: determinism_test.cc.
#include "core/engine/response_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <tuple>

#include "core/engine/decode.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/engine/prompt.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine::response_cache_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::SizeIs;
using testing::StatusIs;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(ValueSimilarity, IsTheCosineAndExactlyOneForEqualRows) {
  const auto similarity = [](std::vector<float> a, std::vector<float> b) {
    return ValueSimilarity(a.data(), b.data(), std::ssize(a));
  };
  EXPECT_EQ(similarity({0.1F, 0.7F, -0.3F}, {0.1F, 0.7F, -0.3F}), 1);
  EXPECT_EQ(similarity({0, 0}, {0, 0}), 1);
  EXPECT_EQ(similarity({1, 0}, {0, 0}), 0);
  EXPECT_NEAR(similarity({1, 2}, {2, 4}), 1, 1e-15);
  EXPECT_LE(similarity({1, 2}, {2, 4}), 1);
  EXPECT_EQ(similarity({1, 0}, {-1, 0}), -1);
  EXPECT_NEAR(similarity({0, 1, 3, 0}, {1, 0, 3, 0}), 0.9, 1e-15);
  EXPECT_TRUE(std::isnan(similarity({1, kNan}, {1, kNan})));
}

TEST(LeastSimilar, RoundsUpTakesAtLeastOneAndTiesGoToTheLowerRow) {
  const std::vector<double> values{1, 0.5, 0.2, 0.5, 1};
  EXPECT_THAT(LeastSimilar(values, 0.01), ElementsAre(2));
  EXPECT_THAT(LeastSimilar(values, 0.4), ElementsAre(1, 2));
  EXPECT_THAT(LeastSimilar(values, 0.41), ElementsAre(1, 2, 3));
  EXPECT_THAT(LeastSimilar(values, 0.8), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(LeastSimilar(values, 1), SizeIs(5));
  EXPECT_THAT(LeastSimilar(std::vector<double>(4, 1.0), 0.5), ElementsAre(0, 1));
  EXPECT_THAT(LeastSimilar(std::vector<double>{-1, kNan, 0, kNan}, 0.5), ElementsAre(1, 3));
}

GenerateParams Params(std::int64_t every, double share) {
  GenerateParams params;
  params.gen_length = 12;
  params.block_length = 6;
  params.steps = 12;
  params.ignore_eos = true;
  params.response_every = every;
  params.response_share = share;
  return params;
}

TEST(ResponseParams, AreChecked) {
  EXPECT_THAT(Validate(Params(8, 1)), IsOk());
  EXPECT_FALSE(Params(1, 0.5).caches_response());
  EXPECT_TRUE(Params(2, 0.5).caches_response());
  EXPECT_THAT(Validate(Params(-1, 0.5)), StatusIs(absl::StatusCode::kInvalidArgument,
                                                  HasSubstr("response_every: expected 0 to")));
  for (const double bad : {0.0, -0.5, 1.01, std::nan("")}) {
    EXPECT_THAT(Validate(Params(2, bad)),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("response_share: expected above 0, at most 1, found")));
  }
}

// (step, position, token, confidence bits), in order.
using Trace = std::vector<std::tuple<std::int64_t, std::int64_t, std::int32_t, std::uint32_t>>;

class ResponseCacheTest : public ::testing::TestWithParam<std::tuple<const char*, kernels::DType>> {
 protected:
  ResponseCacheTest()
      : model_(std::string(MASKKV_SOURCE_DIR) + "/tests/data/golden/checkpoints/" +
                   std::get<0>(GetParam()),
               std::get<1>(GetParam()), 2, 400) {
    for (std::int32_t i = 0; i < 40; ++i) prompt_.push_back((7 * i) % 60);
  }
  const model::ModelConfig& config() const { return model_.weights.config(); }

  std::shared_ptr<const KvView> Entry() {
    const std::vector<Row> rows = PromptThenMasks(prompt_, 12, config());
    PrefillRequest request;
    request.rows = rows;
    request.plan.layer_rule = LayerRule::kUniform;
    request.plan.budget = 8;
    request.kv_dtype = model_.weights.compute();
    auto entry = std::make_shared<HeapKvEntry>();
    EXPECT_THAT(Prefiller(model_.transformer).Run(request, *entry), IsOk());
    return entry;
  }

  DecodeRequest Request(const GenerateParams& params, bool cached = true) {
    DecodeRequest request;
    request.prompt = cached ? RecomputedTail(config(), prompt_) : prompt_;
    request.prompt_tokens = std::ssize(prompt_);
    request.params = params;
    request.params.stop_ids = {config().eos_id};
    request.provisional = true;
    if (cached) request.cache = Entry();
    return request;
  }

  Trace Run(const GenerateParams& params, bool cached) {
    Decoder decoder(model_.transformer);
    EXPECT_THAT(decoder.Add(Request(params, cached)), IsOk());
    Trace trace;
    while (decoder.running() > 0) {
      const StepEvent event = decoder.Step().front();
      EXPECT_THAT(event.status, IsOk());
      for (const auto* predictions : {&event.committed, &event.provisional}) {
        for (const Prediction& p : *predictions) {
          trace.emplace_back(event.step, p.position, p.token,
                             std::bit_cast<std::uint32_t>(p.confidence));
        }
      }
    }
    return trace;
  }

  TestModel model_;
  std::vector<std::int32_t> prompt_;
};

TEST_P(ResponseCacheTest, RecomputingEveryRowIsThePlainDecodingBitForBit) {
  for (const bool cached : {true, false}) {
    const Trace plain = Run(Params(0, 0.25), cached);
    EXPECT_EQ(Run(Params(1, 0.25), cached), plain);
    EXPECT_EQ(Run(Params(5, 1), cached), plain);
    EXPECT_NE(Run(Params(5, 0.25), cached), plain);
  }
}

TEST_P(ResponseCacheTest, ForwardsAreWholeByCountAndOnceAnEntryIsSwapped) {
  Decoder decoder(model_.transformer);
  MASKKV_ASSERT_OK_AND_ASSIGN(const RequestId plain, decoder.Add(Request(Params(0, 0.5))));
  MASKKV_ASSERT_OK_AND_ASSIGN(const RequestId id, decoder.Add(Request(Params(3, 0.5))));
  EXPECT_EQ(decoder.FindResponseCache(plain), nullptr);
  const ResponseCache& cache = *decoder.FindResponseCache(id);
  const std::int64_t rows = 12 + (config().shifted_logits ? 1 : 0);
  EXPECT_EQ(cache.bytes(), 0);
  const auto step = [&](bool whole) {
    const std::vector<StepEvent> events = decoder.Step();
    ASSERT_THAT(events, SizeIs(2));
    EXPECT_EQ(events[0].request, plain) << "by ascending id";
    EXPECT_EQ(events[0].response_cache_bytes, 0);
    EXPECT_EQ(events[1].response_cache_bytes, ResponseCache::BytesOf(config(), rows));
    EXPECT_EQ(cache.whole(), whole);
    for (std::int64_t layer = 0; layer < config().layers; ++layer) {
      EXPECT_THAT(cache.layer(layer).chosen,
                  SizeIs(static_cast<std::size_t>(whole ? rows : (rows + 1) / 2)));
    }
  };
  for (const bool whole : {true, false, false, true, false}) step(whole);
  ASSERT_THAT(decoder.SwapCache(id, Entry()), IsOk());
  for (const bool whole : {true, false, false, true}) step(whole);
}

TEST_P(ResponseCacheTest, KeptMassIsThatOfWholeForwards) {
  GenerateParams params = Params(0, 0.5);
  params.refresh_floor = 1e-9;
  Decoder plain(model_.transformer), caching(model_.transformer);
  ASSERT_THAT(plain.Add(Request(params)), IsOk());
  params.response_every = 3;
  ASSERT_THAT(caching.Add(Request(params)), IsOk());
  const auto mass = [](Decoder& decoder) { return decoder.Step().front().kept_mass; };
  EXPECT_EQ(mass(caching), mass(plain));
  EXPECT_EQ(mass(caching), std::nullopt);
  EXPECT_EQ(mass(caching), std::nullopt);
  EXPECT_TRUE(mass(caching).has_value());
}

INSTANTIATE_TEST_SUITE_P(Models, ResponseCacheTest,
                         ::testing::Combine(::testing::Values("mha", "dream", "moe_gqa"),
                                            ::testing::Values(kernels::DType::kF32,
                                                              kernels::DType::kBF16)),
                         [](const auto& model) {
                           return std::string(std::get<0>(model.param)) + "_" +
                                  std::string(kernels::Name(std::get<1>(model.param)));
                         });

}  // namespace
}  // namespace maskkv::engine::response_cache_test
