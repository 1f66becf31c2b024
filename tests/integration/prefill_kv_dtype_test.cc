// SPDX-License-Identifier: Apache-2.0
//
// The prefill service and the types of kept pairs that requests choose.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "core/base/error.h"
#include "core/engine/prompt.h"
#include "services/common/dtype_proto.h"
#include "tests/integration/prefill_harness.h"
#include "tests/support/status_matchers.h"

namespace maskkv::testing {
namespace {

TEST(PrefillKvDtypeTest, TheTypeOfPairsIsTheRequestsAndPartOfTheEntrysIdentity) {
  PrefillHarness harness;
  const model::ModelConfig& config = harness.model->config();
  const std::vector<std::int32_t> ids = TokensOf(config, 300, 1);
  std::vector<std::uint64_t> entries;
  for (const auto& [asked, dtype] : {std::pair{v1::KV_DTYPE_UNSPECIFIED, kernels::DType::kF32},
                                     {v1::KV_DTYPE_INT8, kernels::DType::kInt8},
                                     {v1::KV_DTYPE_BF16, kernels::DType::kBF16}}) {
    v1::PrefillRequest request = RequestOf(ids);
    request.mutable_keep()->set_kv_dtype(asked);
    MASKKV_ASSERT_OK_AND_ASSIGN(const v1::PrefillResponse answer, harness.Prefill(request));
    EXPECT_FALSE(answer.cached());
    EXPECT_EQ(answer.kv_dtype(), services::ToProto(dtype));
    const auto alone =
        EngineAlone(*harness.model, engine::PromptThenMasks(ids, request.masks(), config),
                    UniformPlan(6), 1, dtype);
    const auto entry = harness.Map(answer.handle());
    ASSERT_NE(entry, nullptr);
    ExpectSameEntry(alone->entry, *entry);
    EXPECT_EQ(answer.full_bytes(),
              static_cast<std::uint64_t>(300 * config.layers * config.kv_heads *
                                         entry->shape().KvBytes()));
    MASKKV_ASSERT_OK_AND_ASSIGN(const v1::PrefillResponse again, harness.Prefill(request));
    EXPECT_TRUE(again.cached());
    EXPECT_EQ(again.handle().entry_id(), answer.handle().entry_id());
    EXPECT_EQ(again.kv_dtype(), answer.kv_dtype());
    EXPECT_EQ(std::ranges::count(entries, answer.handle().entry_id()), 0);
    entries.push_back(answer.handle().entry_id());
  }
  // Said or not, f32 is what this service stores.
  v1::PrefillRequest request = RequestOf(ids);
  request.mutable_keep()->set_kv_dtype(v1::KV_DTYPE_F32);
  MASKKV_ASSERT_OK_AND_ASSIGN(const v1::PrefillResponse answer, harness.Prefill(request));
  EXPECT_EQ(answer.handle().entry_id(), entries.front());

  request.mutable_keep()->set_kv_dtype(static_cast<v1::KvDtype>(77));
  EXPECT_EQ(ErrorReason(harness.Prefill(request).status()), "BAD_KEEP");
}

}  // namespace
}  // namespace maskkv::testing
