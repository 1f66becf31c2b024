// SPDX-License-Identifier: Apache-2.0
//
// Prefills over a document's copy, through the prefill service and the cache manager.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "core/base/error.h"
#include "core/engine/document_copy.h"
#include "core/engine/prompt.h"
#include "tests/integration/prefill_harness.h"
#include "tests/support/status_matchers.h"

namespace maskkv::testing {
namespace {

constexpr std::int32_t kDocument = 60;
constexpr std::int64_t kMasks = 8;

// Document and a question that the seed decides.
std::vector<std::int32_t> Ids(const model::ModelConfig& config, std::uint64_t question) {
  std::vector<std::int32_t> ids = TokensOf(config, kDocument, 1);
  const std::vector<std::int32_t> more = TokensOf(config, 20, question);
  ids.insert(ids.end(), more.begin(), more.end());
  return ids;
}

v1::PrefillRequest Ask(const model::ModelConfig& config, std::uint64_t question) {
  v1::PrefillRequest request = RequestOf(Ids(config, question), kMasks);
  request.mutable_prompt()->mutable_tokens()->set_document_tokens(kDocument);
  return request;
}

class PrefillDocumentTest : public ::testing::Test {
 protected:
  v1::Handle Copy(std::uint64_t question, v1::KvDtype kv_dtype = v1::KV_DTYPE_UNSPECIFIED) {
    v1::PrefillRequest request = Ask(config(), question);
    request.mutable_keep()->Clear();
    request.mutable_keep()->set_selection(v1::SELECTION_FULL);
    request.mutable_keep()->set_kv_dtype(kv_dtype);
    const auto answer = harness_.Prefill(request);
    EXPECT_THAT(answer, IsOk());
    return answer.ok() ? answer->handle() : v1::Handle();
  }
  const model::ModelConfig& config() const { return harness_.model->config(); }
  std::string ReasonOf(const v1::PrefillRequest& request, const std::string& tenant = "") {
    return ErrorReason(harness_.Prefill(request, tenant).status());
  }

  PrefillHarness harness_;
};

class CopyOfTypeTest : public PrefillDocumentTest,
                       public ::testing::WithParamInterface<v1::KvDtype> {};

INSTANTIATE_TEST_SUITE_P(Types, CopyOfTypeTest,
                         ::testing::Values(v1::KV_DTYPE_F32, v1::KV_DTYPE_INT8));

TEST_P(CopyOfTypeTest, TheEntryIsWhatTheEngineAloneKeepsOverTheCopyBitForBit) {
  v1::PrefillRequest request = Ask(config(), 3);
  *request.mutable_document() = Copy(2, GetParam());
  const auto answer = harness_.Prefill(request);
  ASSERT_THAT(answer, IsOk());
  EXPECT_FALSE(answer->cached());
  EXPECT_EQ(answer->document_tokens(), kDocument);

  const std::shared_ptr<const arena::MappedEntry> copy = harness_.Map(request.document());
  MASKKV_ASSERT_OK_AND_ASSIGN(const engine::DocumentCopy document,
                              engine::DocumentCopy::Of(*copy, kDocument));
  const std::vector<engine::Row> rows = engine::PromptThenMasks(Ids(config(), 3), kMasks, config());
  engine::PrefillRequest alone;
  alone.rows = rows;
  alone.document = &document;
  alone.plan.layer_rule = engine::LayerRule::kUniform;
  alone.plan.budget = 6;
  alone.kv_dtype = harness_.model->dtype();
  kernels::WorkerPool pool(1);
  transformer::Transformer transformer(harness_.model->weights(), pool, 200);
  engine::HeapKvEntry expected;
  ASSERT_THAT(engine::Prefiller(transformer).Run(alone, expected), IsOk());
  ExpectSameEntry(expected, *harness_.Map(answer->handle()));
}

TEST_F(PrefillDocumentTest, TheQuestionThatWasInPlaceGetsItsOwnPrefillUnderAnotherKey) {
  const auto own = harness_.Prefill(Ask(config(), 2));
  ASSERT_THAT(own, IsOk());
  v1::PrefillRequest request = Ask(config(), 2);
  *request.mutable_document() = Copy(2);
  const auto over = harness_.Prefill(request);
  ASSERT_THAT(over, IsOk());
  EXPECT_FALSE(over->cached()) << "an entry of another key";
  ExpectSameEntry(*harness_.Map(own->handle()), *harness_.Map(over->handle()));
  EXPECT_TRUE(harness_.Prefill(request)->cached());
  *request.mutable_document() = Copy(5);
  EXPECT_FALSE(harness_.Prefill(request)->cached()) << "another copy, other pairs";
}

TEST_F(PrefillDocumentTest, TheCopysFactorIsTheRequests) {
  v1::PrefillRequest request = Ask(config(), 3);
  *request.mutable_document() = Copy(2);
  request.mutable_rope_scaling()->set_factor(4);
  const auto answer = harness_.Prefill(request);
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->rope_scale(), 1);
}

TEST_F(PrefillDocumentTest, WhatIsNoCopyOfThisDocumentIsRefusedWithAReason) {
  v1::PrefillRequest request = Ask(config(), 3);
  *request.mutable_document() = Copy(2);
  EXPECT_EQ(ReasonOf(request, "someone-else"), "HANDLE_UNKNOWN");

  v1::PrefillRequest other = request;
  other.set_masks(9);
  EXPECT_EQ(ReasonOf(other), "HANDLE_PROMPT_MISMATCH");
  other = request;
  other.mutable_prompt()->mutable_tokens()->set_ids(5,
                                                    request.prompt().tokens().ids(5) == 1 ? 2 : 1);
  EXPECT_EQ(ReasonOf(other), "HANDLE_PROMPT_MISMATCH");
  other = request;
  for (const char* policy : {"snapkv", "prompt-voting", "all-voting"}) {
    other.mutable_keep()->Clear();
    other.mutable_keep()->set_policy(policy);
    other.mutable_keep()->set_budget(50);
    EXPECT_EQ(ReasonOf(other), "BAD_KEEP") << policy;
  }
  const auto cut = harness_.Prefill(Ask(config(), 7));
  ASSERT_THAT(cut, IsOk());
  *request.mutable_document() = cut->handle();
  EXPECT_EQ(ReasonOf(request), "DOCUMENT_NOT_WHOLE");
  request.mutable_document()->set_epoch(1);
  EXPECT_EQ(ReasonOf(request), "EPOCH_MOVED");
}

}  // namespace
}  // namespace maskkv::testing
