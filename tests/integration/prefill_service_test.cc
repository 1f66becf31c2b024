// SPDX-License-Identifier: Apache-2.0
//
// The prefill service over real channels and a real cache manager: what it answers.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <numeric>
#include <string>

#include "absl/strings/str_format.h"
#include "core/arena/layout.h"
#include "core/base/error.h"
#include "core/base/sha256.h"
#include "services/common/status.h"
#include "tests/integration/prefill_harness.h"
#include "tests/support/status_matchers.h"

namespace maskkv::testing {
namespace {

using engine::EvictionPlan;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// Keeps what the entry and the answer say against what the engine alone does.
void ExpectAsEngineAlone(PrefillHarness& harness, const v1::PrefillRequest& request,
                         const EvictionPlan& plan) {
  const std::vector<std::int32_t> ids(request.prompt().tokens().ids().begin(),
                                      request.prompt().tokens().ids().end());
  const auto answer = harness.Prefill(request);
  ASSERT_THAT(answer, IsOk());
  const auto alone = EngineAlone(*harness.model, ids, request.masks(), plan);
  const auto entry = harness.Map(answer->handle());
  ASSERT_NE(entry, nullptr);
  ExpectSameEntry(alone->entry, *entry);
  EXPECT_EQ(answer->kept().pairs(), alone->result.pairs());
  EXPECT_EQ(answer->kept().mass(), alone->result.kept_mass());
  EXPECT_EQ(answer->prompt_tokens(), static_cast<std::int64_t>(ids.size()));
  EXPECT_EQ(answer->kept().considered(), answer->prompt_tokens() * harness.model->config().layers *
                                             harness.model->config().kv_heads);
  for (std::size_t layer = 0; layer < alone->result.layers.size(); ++layer) {
    const auto& pairs = alone->result.layers[layer].pairs;
    EXPECT_EQ(answer->kept().per_layer(static_cast<int>(layer)),
              std::accumulate(pairs.begin(), pairs.end(), std::int64_t{0}));
  }
  EXPECT_EQ(answer->provenance().entry_digest(), Hex(entry->ContentDigest()));
  EXPECT_EQ(answer->provenance().model_fingerprint(), harness.model->fingerprint());
  EXPECT_EQ(entry->metadata().masks, request.masks());
  EXPECT_EQ(entry->metadata().kept_mass, answer->kept().mass());
  EXPECT_FALSE(answer->cached());
}

TEST(PrefillServiceTest, AnEntryIsWhatTheEngineAloneKeepsBitForBit) {
  PrefillHarness harness;
  const model::ModelConfig& config = harness.model->config();
  v1::PrefillRequest request = RequestOf(TokensOf(config, 300, 1));
  ExpectAsEngineAlone(harness, request, UniformPlan(6));

  request.mutable_keep()->set_layer_rule(v1::LAYER_RULE_ONLINE);
  EvictionPlan plan = UniformPlan(6);
  plan.layer_rule = engine::LayerRule::kOnline;
  ExpectAsEngineAlone(harness, request, plan);

  request.mutable_keep()->set_selection(v1::SELECTION_RANDOM);
  request.mutable_keep()->set_random_seed(11);
  plan = UniformPlan(6);
  plan.selection = engine::Selection::kRandom;
  plan.random_seed = 11;
  ExpectAsEngineAlone(harness, request, plan);

  request.mutable_keep()->set_selection(v1::SELECTION_FULL);
  plan = UniformPlan(6);
  plan.selection = engine::Selection::kFull;
  ExpectAsEngineAlone(harness, request, plan);

  request.mutable_keep()->Clear();
  request.mutable_keep()->set_coverage(0.9);
  plan = UniformPlan(64);
  plan.coverage = 0.9;
  ExpectAsEngineAlone(harness, request, plan);

  for (const char* name : {"snapkv", "adakv", "streaming", "maskkv-pool", "all-voting",
                           "masks-back/pyramid/preference"}) {
    SCOPED_TRACE(name);
    request.mutable_keep()->Clear();
    request.mutable_keep()->set_policy(name);
    request.mutable_keep()->set_budget(6);
    plan = UniformPlan(6);
    plan.Follow(policy::ParsePolicy(name).value());
    ExpectAsEngineAlone(harness, request, plan);
  }

  // One token, no token, one mask.
  for (const std::int64_t tokens : {1, 0}) {
    ExpectAsEngineAlone(harness, RequestOf(TokensOf(config, tokens, 2), 1, 4), UniformPlan(4));
  }
  // The unconditional prompt of guidance.
  const std::vector<std::int32_t> masked(20, config.mask_id);
  ExpectAsEngineAlone(harness, RequestOf(masked, 8, 4), UniformPlan(4));
}

TEST(PrefillServiceTest, TextGoesThroughTheChatTemplateAndTheProfileIsTheDefault) {
  PrefillHarness harness({.model = "models/tiny-llada"});
  v1::PrefillRequest text;
  text.mutable_prompt()->mutable_document()->set_document("Ann lives in Lyon.");
  text.mutable_prompt()->mutable_document()->set_question("Where does Ann live?");
  text.set_masks(8);
  text.mutable_keep()->set_budget(6);
  v1::TokenizeRequest tokenize;
  *tokenize.mutable_prompt() = text.prompt();
  v1::TokenizeResponse tokens;
  grpc::ClientContext context;
  ASSERT_TRUE(harness.stub->Tokenize(&context, tokenize, &tokens).ok());
  EXPECT_GT(tokens.document_tokens(), 5);
  EXPECT_LT(tokens.document_tokens(), tokens.ids_size());

  const auto answer = harness.Prefill(text);
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->prompt_tokens(), tokens.ids_size());
  EXPECT_EQ(answer->document_tokens(), tokens.document_tokens());
  EvictionPlan plan;
  plan.budget = 6;
  plan.importance = harness.model->profile()->importance;
  const std::vector<std::int32_t> ids(tokens.ids().begin(), tokens.ids().end());
  const auto alone = EngineAlone(*harness.model, ids, 8, plan);
  const auto entry = harness.Map(answer->handle());
  ASSERT_NE(entry, nullptr);
  ExpectSameEntry(alone->entry, *entry);
  EXPECT_EQ(
      entry->metadata().document_digest,
      arena::TokenDigest(std::span(ids).first(static_cast<std::size_t>(tokens.document_tokens()))));
}

TEST(PrefillServiceTest, TheSamePromptAgainRunsNoForward) {
  PrefillHarness harness;
  const v1::PrefillRequest request = RequestOf(TokensOf(harness.model->config(), 100, 1));
  const auto first = harness.Prefill(request);
  const auto second = harness.Prefill(request);
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT(second, IsOk());
  EXPECT_TRUE(second->cached());
  EXPECT_EQ(second->timings().forward_ms(), 0);
  EXPECT_EQ(harness.Finished("forward"), 1);
  EXPECT_EQ(harness.Finished("cached"), 1);
  v1::PrefillResponse same = *second;
  *same.mutable_timings() = first->timings();
  same.set_cached(false);
  EXPECT_EQ(same.SerializeAsString(), first->SerializeAsString());
}

TEST(PrefillServiceTest, WhateverChangesTheEntryIsAnotherEntry) {
  PrefillHarness harness;
  const std::vector<std::int32_t> ids = TokensOf(harness.model->config(), 100, 1);
  const v1::PrefillRequest request = RequestOf(ids);
  ASSERT_THAT(harness.Prefill(request), IsOk());
  const auto computed = [&](const v1::PrefillRequest& other, const std::string& tenant = "") {
    const auto answer = harness.Prefill(other, tenant);
    EXPECT_THAT(answer, IsOk());
    return answer.ok() && !answer->cached();
  };
  EXPECT_TRUE(computed(RequestOf(ids, 9)));
  EXPECT_TRUE(computed(RequestOf(ids, 8, 7)));
  EXPECT_TRUE(computed(request, "someone-else"));
  v1::PrefillRequest other = request;
  other.mutable_keep()->set_alpha(0.5);
  EXPECT_TRUE(computed(other));
  other = request;
  other.mutable_prompt()->mutable_tokens()->set_document_tokens(50);
  EXPECT_TRUE(computed(other));
  other = request;
  other.set_ignore_cached(true);
  EXPECT_TRUE(computed(other));
  EXPECT_FALSE(computed(request));
}

TEST(PrefillServiceTest, AnEntryOfOneTenantIsNotThereForAnother) {
  PrefillHarness harness;
  const auto answer =
      harness.Prefill(RequestOf(TokensOf(harness.model->config(), 100, 1)), "alice");
  ASSERT_THAT(answer, IsOk());
  EXPECT_NE(harness.Map(answer->handle(), "alice"), nullptr);
  arena::CacheManager& manager = harness.cache->manager();
  const auto token = manager.OpenSession({.uid = 1, .tenant = "bob", .is_service = false});
  const auto bob = manager.Authenticate(*token, "");
  EXPECT_TRUE(manager.List(*bob, 0, 10).empty());
}

TEST(PrefillServiceTest, PromptsThatCannotBeComputedAreRefusedWithAReason) {
  PrefillHarness harness;
  const model::ModelConfig& config = harness.model->config();
  const arena::CacheStat before = harness.cache->manager().Stat();
  const auto refused = [&](const v1::PrefillRequest& request) {
    const auto answer = harness.Prefill(request);
    EXPECT_FALSE(answer.ok());
    // No token of the prompt is in it.
    EXPECT_THAT(std::string(answer.status().message()),
                AllOf(Not(HasSubstr("-7")), Not(HasSubstr("1073741824"))));
    return ErrorReason(answer.status());
  };
  v1::PrefillRequest request;
  request.set_masks(4);
  EXPECT_EQ(refused(request), "BAD_PROMPT");
  request.mutable_prompt();
  EXPECT_EQ(refused(request), "BAD_PROMPT");
  EXPECT_EQ(refused(RequestOf({1, config.mask_id, 2})), "MASK_IN_PROMPT");
  EXPECT_EQ(refused(RequestOf({1, -7, 2})), "TOKEN_OUT_OF_RANGE");
  EXPECT_EQ(refused(RequestOf({1, 1 << 30})), "TOKEN_OUT_OF_RANGE");
  EXPECT_EQ(refused(RequestOf(TokensOf(config, harness.model->max_positions(), 1))),
            "PROMPT_TOO_LONG");
  EXPECT_EQ(refused(RequestOf({1}, 0)), "BAD_MASKS");
  EXPECT_EQ(refused(RequestOf({1}, std::int64_t{1} << 40)), "PROMPT_TOO_LONG");
  EXPECT_EQ(refused(RequestOf({1}, 4, 0)), "BAD_KEEP");
  request = RequestOf({1});
  request.set_priority(101);
  EXPECT_EQ(refused(request), "BAD_PRIORITY");
  request = RequestOf({1});
  request.set_request_id("with\nnewline");
  EXPECT_EQ(refused(request), "BAD_REQUEST_ID");
  request = RequestOf({1});
  request.mutable_prompt()->mutable_document()->set_document("text");
  EXPECT_EQ(refused(request), "NO_TOKENIZER");
  request = RequestOf({1});
  request.mutable_keep()->set_layer_rule(v1::LAYER_RULE_OFFLINE);
  EXPECT_EQ(refused(request), "NO_PROFILE");
  EXPECT_EQ(harness.cache->manager().Stat().allocated_bytes, before.allocated_bytes);
}

TEST(PrefillServiceTest, AQuotaOrAFullCacheIsPassedOnWithItsReason) {
  PrefillHarness harness({.cache_capacity = 256 << 10, .tenant_quota = 64 << 10});
  const model::ModelConfig& config = harness.model->config();
  v1::PrefillRequest large = RequestOf(TokensOf(config, 1000, 1));
  large.mutable_keep()->set_selection(v1::SELECTION_FULL);
  EXPECT_EQ(ErrorReason(harness.Prefill(large).status()), "ENTRY_TOO_LARGE");
  // Two that are leased, and no room for a third.
  const auto first = harness.Prefill(RequestOf(TokensOf(config, 100, 1), 8, 5));
  const auto second = harness.Prefill(RequestOf(TokensOf(config, 100, 2), 8, 5));
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT(second, IsOk());
  auto lease = harness.Map(first->handle());
  auto other_lease = harness.Map(second->handle());
  absl::Status status;
  for (std::uint64_t seed = 3; seed < 20 && status.ok(); ++seed) {
    const auto more = harness.Prefill(RequestOf(TokensOf(config, 100, seed), 8, 5));
    status = more.status();
    if (more.ok()) (void)harness.Map(more->handle()).get();
  }
  lease.reset();
  other_lease.reset();
  // Unleased entries made room every time.
  EXPECT_THAT(status, IsOk());
  std::vector<std::shared_ptr<const arena::MappedEntry>> leases;
  for (std::uint64_t seed = 30; seed < 60 && status.ok(); ++seed) {
    const auto more = harness.Prefill(RequestOf(TokensOf(config, 100, seed), 8, 5));
    status = more.status();
    if (more.ok()) leases.push_back(harness.Map(more->handle()));
  }
  EXPECT_EQ(ErrorReason(status), "QUOTA_EXCEEDED");
  EXPECT_TRUE(RetryAfter(status).has_value());
  EXPECT_EQ(harness.cache->manager().Stat().reserved_entries, 0);
}

TEST(PrefillServiceTest, ACacheManagerThatFallsSilentHoldsNobodyUpForEver) {
  PrefillHarness harness({.answer_within_ms = 100});
  const v1::PrefillRequest request = RequestOf(TokensOf(harness.model->config(), 50, 1));
  harness.gate.Hold();
  const auto unanswered = harness.Prefill(request);
  EXPECT_TRUE(absl::IsUnavailable(unanswered.status()));
  EXPECT_EQ(ErrorReason(unanswered.status()), "CACHE_DOWN");
  harness.gate.Open();
  Until([&] { return harness.Prefill(request).ok(); });
  Until([&] { return harness.cache->manager().Stat().reserved_entries == 0; });
}

TEST(PrefillServiceTest, ExplainsWhatAPrefillOfTheSamePromptKeeps) {
  PrefillHarness harness;
  const model::ModelConfig& config = harness.model->config();
  const v1::PrefillRequest request = RequestOf(TokensOf(config, 200, 5));
  const auto answer = harness.Prefill(request);
  ASSERT_THAT(answer, IsOk());
  const auto entry = harness.Map(answer->handle());
  ASSERT_NE(entry, nullptr);
  v1::ExplainRequest explain;
  *explain.mutable_prompt() = request.prompt();
  *explain.mutable_keep() = request.keep();
  explain.set_masks(request.masks());
  explain.set_with_scores(true);
  grpc::ClientContext context;
  v1::ExplainResponse explained;
  ASSERT_TRUE(harness.stub->Explain(&context, explain, &explained).ok());
  EXPECT_EQ(explained.kept().SerializeAsString(), answer->kept().SerializeAsString());
  ASSERT_EQ(explained.heads_size(), config.layers * config.kv_heads);
  for (const v1::HeadExplanation& head : explained.heads()) {
    const auto positions = entry->Positions(head.layer(), head.head());
    ASSERT_TRUE(std::equal(positions.begin(), positions.end(), head.positions().begin(),
                           head.positions().end()));
    ASSERT_EQ(head.scores_size(), 200);
    double kept = 0;
    for (const std::int32_t position : head.positions()) kept += head.scores(position);
    EXPECT_NEAR(kept, head.kept_mass(), 1e-5 * head.prompt_mass());
    EXPECT_GE(head.preference(), 0);
  }
  EXPECT_EQ(harness.cache->manager().Stat().sealed_entries, 1);
}

TEST(PrefillServiceTest, AnExplanationThatFitsNoMessageIsRefusedNamingTheLimit) {
  PrefillHarnessOptions options;
  options.service.max_message_bytes = 20'000;
  PrefillHarness harness(options);
  v1::ExplainRequest explain;
  *explain.mutable_prompt() = RequestOf(TokensOf(harness.model->config(), 500, 5)).prompt();
  explain.set_masks(4);
  explain.mutable_keep()->set_budget(4);
  v1::ExplainResponse explained;
  {
    grpc::ClientContext context;
    EXPECT_TRUE(harness.stub->Explain(&context, explain, &explained).ok());
    EXPECT_EQ(explained.heads(0).scores_size(), 0);
  }
  explain.set_with_scores(true);
  grpc::ClientContext context;
  const absl::Status status =
      services::FromGrpc(harness.stub->Explain(&context, explain, &explained));
  EXPECT_EQ(ErrorReason(status), "RESPONSE_TOO_LARGE");
  EXPECT_EQ(FactsOf(status).at("limit_bytes"), "20000");
}

TEST(PrefillServiceTest, TellsWhatModelItServes) {
  PrefillHarness harness;
  grpc::ClientContext context;
  v1::ModelInfoResponse info;
  ASSERT_TRUE(harness.stub->ModelInfo(&context, {}, &info).ok());
  const model::ModelConfig& config = harness.model->config();
  EXPECT_EQ(info.model_name(), "mha");
  EXPECT_EQ(info.model_fingerprint(), harness.model->fingerprint());
  EXPECT_EQ(info.family(), "llada");
  EXPECT_EQ(info.layers(), config.layers);
  EXPECT_EQ(info.kv_heads(), config.kv_heads);
  EXPECT_EQ(info.mask_id(), config.mask_id);
  EXPECT_EQ(info.max_positions(), services::kLongestDefault);
  EXPECT_EQ(info.pair_bytes(), static_cast<std::uint64_t>(2 * config.head_dim * 4 + 4));
  EXPECT_EQ(info.stop_ids(0), config.eos_id);
  EXPECT_FALSE(info.has_tokenizer());
  EXPECT_EQ(info.layout(), arena::LayoutHashText());
}

TEST(PrefillServiceTest, CountsWhatItsCallersSaw) {
  PrefillHarness harness;
  const model::ModelConfig& config = harness.model->config();
  double kept = 0, considered = 0, tokens = 0;
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    const auto answer =
        harness.Prefill(RequestOf(TokensOf(config, 20 * static_cast<std::int64_t>(seed), seed)));
    ASSERT_THAT(answer, IsOk());
    kept += static_cast<double>(answer->kept().pairs());
    considered += static_cast<double>(answer->kept().considered());
    tokens += static_cast<double>(answer->prompt_tokens());
  }
  ASSERT_FALSE(harness.Prefill(RequestOf({1, config.mask_id})).ok());
  EXPECT_EQ(harness.Metric("maskkv_pairs_kept_total"), kept);
  EXPECT_EQ(harness.Metric("maskkv_pairs_considered_total"), considered);
  EXPECT_EQ(harness.Metric("maskkv_prompt_tokens_total{service=\"prefill\"}"), tokens);
  EXPECT_EQ(harness.Metric("maskkv_score_mass_kept_ratio_count"), 5);
  double by_policy = 0;
  for (const char* name : {"maskkv", "maskkv-no-layers", "custom", "snapkv"}) {
    by_policy += harness.Metric(absl::StrFormat("maskkv_prefills_total{policy=\"%s\"}", name));
  }
  EXPECT_EQ(by_policy, 5);
  EXPECT_EQ(harness.Metric("maskkv_prefills_total{policy=\"snapkv\"}"), 0);
  EXPECT_EQ(harness.Metric("maskkv_request_duration_seconds_count{service=\"prefill\"}"), 6);
  EXPECT_EQ(harness.Finished("forward"), 5);
  EXPECT_EQ(harness.Finished("refused"), 1);
  EXPECT_EQ(harness.Metric("maskkv_requests_running{service=\"prefill\"}"), 0);
  EXPECT_EQ(harness.Metric("maskkv_requests_waiting{service=\"prefill\"}"), 0);
}

}  // namespace
}  // namespace maskkv::testing
