// SPDX-License-Identifier: Apache-2.0
//
// Answers of a model with shifted logits through a real channel: with a cache too, the prompt's
// last token is recomputed, whichever entry serves the rest.
#include <gtest/gtest.h>

#include <vector>

#include "core/base/error.h"
#include "tests/integration/decode_harness.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/model/family_checkpoints.h"

namespace maskkv::testing {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<const services::ModelRuntime> DreamRuntime() {
  const model::TemporaryFolder folder;
  model::WriteRandomCheckpoint(folder, model::FamilyConfig("dream"), 21);
  services::ModelOptions options;
  options.directory = folder.path();
  options.placement.threads = 1;
  options.max_positions = 300;
  absl::StatusOr<std::shared_ptr<const services::ModelRuntime>> loaded =
      services::ModelRuntime::Load(options);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  return *std::move(loaded);
}

HarnessOptions OptionsOf(std::shared_ptr<const services::ModelRuntime> model) {
  HarnessOptions options;
  options.model = std::move(model);
  return options;
}

class ShiftedTest : public ::testing::Test {
 protected:
  ShiftedTest() : harness_(OptionsOf(DreamRuntime())), alone_(harness_.model) {}

  static std::vector<std::int32_t> Ids(std::int32_t count) {
    std::vector<std::int32_t> ids;
    for (std::int32_t i = 0; i < count; ++i) ids.push_back((13 * i + 5) % 88);
    return ids;
  }

  static v1::GenerateRequest Request(const std::vector<std::int32_t>& ids, std::int64_t document) {
    v1::GenerateRequest request;
    v1::TokenIds& tokens = *request.mutable_prompt()->mutable_tokens();
    tokens.mutable_ids()->Assign(ids.begin(), ids.end());
    tokens.set_document_tokens(static_cast<std::int32_t>(document));
    request.mutable_sampler()->set_gen_length(8);
    request.mutable_sampler()->set_ignore_eos(true);
    request.mutable_keep()->set_selection(v1::SELECTION_FULL);
    return request;
  }

  Trace Alone(const v1::GenerateRequest& request) {
    engine::GenerateParams params;
    params.gen_length = params.steps = params.block_length = 8;
    params.ignore_eos = true;
    params.stop_ids = harness_.model->stop_ids();
    const auto& ids = request.prompt().tokens().ids();
    return alone_.Run({ids.begin(), ids.end()}, params,
                      request.cache() == v1::CACHE_NONE ? nullptr : &request.keep());
  }

  DecodeHarness harness_;
  EngineAlone alone_;
};

TEST_F(ShiftedTest, AnswersAreTheEnginesWithAndWithoutACache) {
  for (const std::int32_t length : {1, 2, 40}) {
    v1::GenerateRequest request = Request(Ids(length), 0);
    for (const v1::Selection selection : {v1::SELECTION_FULL, v1::SELECTION_MASKKV}) {
      request.mutable_keep()->set_selection(selection);
      const Reply reply = harness_.Ask(request);
      ASSERT_THAT(reply.status, IsOk());
      EXPECT_EQ(reply.trace(), Alone(request)) << length;
    }
    request.set_cache(v1::CACHE_NONE);
    const Reply whole = harness_.Ask(request);
    ASSERT_THAT(whole.status, IsOk());
    EXPECT_EQ(whole.trace(), Alone(request)) << length;
  }
}

TEST_F(ShiftedTest, TheSamePromptUsesAKeptEntryAndGetsTheSameTokens) {
  v1::GenerateRequest request = Request(Ids(40), 0);
  const Reply first = harness_.Ask(request);
  ASSERT_THAT(first.status, IsOk());
  request.set_reuse(v1::REUSE_KEPT);
  *request.mutable_handle() = first.started.handle();
  const Reply again = harness_.Ask(request);
  ASSERT_THAT(again.status, IsOk());
  EXPECT_EQ(harness_.backends.prefills(), 1);
  EXPECT_EQ(again.trace(), first.trace());
  EXPECT_EQ(again.finished.at(0).usage().kept_pairs(), first.finished.at(0).usage().kept_pairs());
}

TEST_F(ShiftedTest, ADocumentServesNeitherPromptsLastToken) {
  const model::ModelConfig& config = harness_.model->config();
  const std::int64_t heads = config.layers * config.kv_heads;
  const auto kept = [&](std::int32_t first_length, std::int32_t length) {
    const Reply first = harness_.Ask(Request(Ids(first_length), 30));
    EXPECT_THAT(first.status, IsOk());
    v1::GenerateRequest request = Request(Ids(length), 30);
    request.set_reuse(v1::REUSE_KEPT);
    *request.mutable_handle() = first.started.handle();
    const Reply reply = harness_.Ask(request);
    EXPECT_THAT(reply.status, IsOk());
    return reply.finished.at(0).usage().kept_pairs();
  };
  EXPECT_EQ(kept(40, 50), 30 * heads) << "a document before two questions";
  EXPECT_EQ(kept(30, 50), 29 * heads) << "the entry's prompt ends with the document";
  EXPECT_EQ(kept(40, 30), 29 * heads) << "the new prompt is the document";
}

TEST_F(ShiftedTest, AnEmptyPromptIsRefused) {
  for (const auto cache : {v1::CACHE_NONE, v1::CACHE_COMPRESSED}) {
    v1::GenerateRequest request = Request({}, 0);
    request.set_cache(cache);
    const Reply reply = harness_.Ask(request);
    EXPECT_THAT(reply.status, StatusIs(absl::StatusCode::kInvalidArgument,
                                       HasSubstr("expected at least one token")));
  }
}

}  // namespace
}  // namespace maskkv::testing
