// SPDX-License-Identifier: Apache-2.0
//
// Guided requests through a real channel: the engine's tokens, a second entry of the masked prompt,
// what is refused.
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "core/base/error.h"
#include "tests/integration/decode_harness.h"
#include "tests/support/status_matchers.h"

namespace maskkv::testing {
namespace {

using ::testing::HasSubstr;

class GuidanceServiceTest : public ::testing::Test {
 protected:
  GuidanceServiceTest() : harness_({}), alone_(harness_.model) {}

  static v1::GenerateRequest Request(double cfg_scale, double temperature = 0) {
    v1::GenerateRequest request;
    v1::DocumentQuestion& document = *request.mutable_prompt()->mutable_document();
    for (int i = 0; i < 4; ++i) {
      document.mutable_document()->append("Alice lives in Paris. Bob works in Rome. ");
    }
    document.set_question("Where does Alice live?");
    v1::Sampler& sampler = *request.mutable_sampler();
    sampler.set_gen_length(16);
    sampler.set_temperature(temperature);
    sampler.set_seed(7);
    sampler.set_ignore_eos(true);
    sampler.set_cfg_scale(cfg_scale);
    request.mutable_keep()->set_budget(6);
    if (temperature == 0) request.mutable_keep()->set_kv_dtype(v1::KV_DTYPE_INT8);
    return request;
  }

  Trace Alone(const v1::GenerateRequest& request) {
    const v1::Sampler& sampler = request.sampler();
    engine::GenerateParams params;
    params.gen_length = params.steps = sampler.gen_length();
    params.block_length = 8;
    params.temperature = sampler.temperature();
    params.seed = sampler.seed();
    params.ignore_eos = sampler.ignore_eos();
    params.stop_ids = harness_.model->stop_ids();
    params.cfg_scale = sampler.cfg_scale();
    return alone_.Run(harness_.model->Tokenize(request.prompt())->ids, params,
                      request.cache() == v1::CACHE_NONE ? nullptr : &request.keep());
  }

  void ExpectNothingLeased() {
    while (harness_.backends.leased() != 0) std::this_thread::yield();
  }

  DecodeHarness harness_;
  EngineAlone alone_;
};

TEST_F(GuidanceServiceTest, ClientsAtOnceGetWhatTheEngineAloneGives) {
  std::vector<v1::GenerateRequest> requests{Request(1.5, 0.9), Request(0, 0.9), Request(0.5),
                                            Request(3, 0.7)};
  requests.back().set_cache(v1::CACHE_NONE);
  std::vector<Reply> replies(requests.size());
  std::vector<std::thread> clients;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    clients.emplace_back([&, i] { replies[i] = harness_.Ask(requests[i]); });
  }
  for (std::thread& client : clients) client.join();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    ASSERT_THAT(replies[i].status, IsOk());
    EXPECT_EQ(replies[i].trace(), Alone(requests[i])) << "request " << i;
  }
  EXPECT_NE(replies[0].trace(), replies[1].trace()) << "guidance changes something";
  EXPECT_EQ(harness_.backends.prefills(), 2 + 1 + 2) << "none without a cache";
  EXPECT_EQ(replies[0].finished.at(0).usage().rows(), 2 * replies[1].finished.at(0).usage().rows());
  // Both prompts are longer than the budget, and the entry that is named is the prompt's own.
  EXPECT_EQ(replies[0].finished.at(0).usage().kept_pairs(),
            2 * replies[1].finished.at(0).usage().kept_pairs());
  EXPECT_EQ(replies[0].started.kept().pairs(), replies[1].started.kept().pairs());
  ExpectNothingLeased();
}

TEST_F(GuidanceServiceTest, AFailedSecondPrefillEndsTheRequestAndFreesTheFirstEntry) {
  harness_.backends.FailPrefill(
      MakeError(absl::StatusCode::kResourceExhausted, "CACHE_FULL", "full"),
      /*after=*/1);
  EXPECT_THAT(harness_.Ask(Request(1)).status,
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("full")));
  ExpectNothingLeased();
}

TEST_F(GuidanceServiceTest, WhatCannotBeGuidedIsRefused) {
  const auto refusal = [&](const v1::GenerateRequest& request) {
    const absl::Status status = harness_.Ask(request).status;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ErrorReason(status), "BAD_SAMPLER");
    return std::string(status.message());
  };
  v1::GenerateRequest request = Request(1);
  *request.mutable_handle() = harness_.Ask(request).started.handle();
  request.set_reuse(v1::REUSE_KEPT);
  EXPECT_THAT(refusal(request), HasSubstr("cfg_scale: expected 0 with REUSE_KEPT"));
  request = Request(1);
  request.mutable_sampler()->set_refresh_every(2);
  EXPECT_THAT(refusal(request), HasSubstr("cfg_scale: expected 0 with refresh_every"));
  EXPECT_THAT(refusal(Request(-1)), HasSubstr("cfg_scale: expected 0 to 1000, found -1"));
}

}  // namespace
}  // namespace maskkv::testing
