// SPDX-License-Identifier: Apache-2.0
#include "core/arena/cache_key.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "core/base/sha256.h"

namespace maskkv::arena {
namespace {

const std::vector<std::int32_t> kTokens = {7, 0, 300, std::numeric_limits<std::int32_t>::max()};
const std::vector<std::int32_t> kDecided = {5, 9, 9};
const std::span<const std::int32_t> kResponse = kDecided;
const std::vector<double> kImportance = {0.25, 0.75}, kWeights = {1.0, 2.0}, kOther = {1.0, 2.5};

CacheKeyFields Example() {
  CacheKeyFields fields;
  fields.tenant = "alice";
  for (std::size_t i = 0; i < fields.model_fingerprint.size(); ++i) {
    fields.model_fingerprint[i] = static_cast<std::byte>(i);
  }
  fields.tokens = kTokens;
  fields.document_tokens = 2;
  fields.masks = 32;
  fields.rope_scaling = "linear 2";
  fields.compute = kernels::DType::kInt8;
  fields.dtype = kernels::DType::kBF16;
  fields.policy = {.selection = engine::Selection::kMaskKv,
                   .layer_rule = engine::LayerRule::kWeights,
                   .budget = 64,
                   .coverage = 0,
                   .max_budget = 512,
                   .alpha = 0.1,
                   .beta = 0.4,
                   .random_seed = 9,
                   .importance = kImportance,
                   .layer_weights = kWeights,
                   .head_rates = {}};
  return fields;
}

// Computed with Python's hashlib from the encoding that docs/shm_format.md describes.
TEST(CacheKey, IsTheDocumentedDigest) {
  EXPECT_EQ(Hex(CacheKey(Example())),
            "52a721b8736cc560735a0154d282207c2231e7853f983170072f578a36c9dfa3");
}

using Change = std::function<void(CacheKeyFields&)>;

std::size_t DistinctKeys(const std::vector<Change>& changes) {
  std::set<Digest> keys;
  for (const Change& change : changes) {
    CacheKeyFields fields = Example();
    change(fields);
    keys.insert(CacheKey(fields));
  }
  return keys.size();
}

TEST(CacheKey, EveryFieldThatIsUsedChangesIt) {
  const auto with_selection = [](engine::Selection selection, const Change& change) {
    return [selection, change](CacheKeyFields& f) {
      f.policy.selection = selection;
      change(f);
    };
  };
  const auto with_coverage = [](const Change& change) {
    return [change](CacheKeyFields& f) {
      f.policy.coverage = 0.5;
      change(f);
    };
  };
  const Change none = [](auto&) {};
  const std::vector<Change> changes = {
      none,
      [](auto& f) { f.tenant = "bob"; },
      [](auto& f) { f.model_fingerprint[31] = std::byte{0}; },
      [](auto& f) { f.tokens = f.tokens.first(3); },
      [](auto& f) { f.document_tokens = 3; },
      [](auto& f) { f.masks = 33; },
      [](auto& f) { f.suffix = kResponse; },
      [](auto& f) { f.suffix = f.response = kResponse; },
      [](auto& f) { f.response = kResponse; },
      [](auto& f) { f.response = kResponse.first(2); },
      [](auto& f) { f.copy_entry_id = 1; },
      [](auto& f) { f.copy_entry_id = 2; },
      [](auto& f) {
        f.copy_entry_id = 2;
        f.copy_epoch = 1;
      },
      [](auto& f) { f.rope_scaling = ""; },
      [](auto& f) { f.compute = kernels::DType::kBF16; },
      [](auto& f) { f.dtype = kernels::DType::kF32; },
      [](auto& f) { f.policy.layer_rule = engine::LayerRule::kOnline; },
      [](auto& f) { f.policy.layer_rule = engine::LayerRule::kOffline; },
      [](auto& f) { f.policy.layer_rule = engine::LayerRule::kUniform; },
      [](auto& f) { f.policy.layer_rule = engine::LayerRule::kPyramid; },
      [](auto& f) { f.policy.layer_rule = engine::LayerRule::kSqueeze; },
      [](auto& f) {
        f.policy.layer_rule = engine::LayerRule::kSqueeze;
        f.policy.importance = kOther;
      },
      [](auto& f) { f.policy.layer_rule = engine::LayerRule::kPool; },
      [](auto& f) { f.policy.voters = engine::Voters::kMasksBack; },
      [](auto& f) { f.policy.voters = engine::Voters::kWindow; },
      [](auto& f) { f.policy.voters = engine::Voters::kRandom; },
      [](auto& f) {
        f.policy.voters = engine::Voters::kRandom;
        f.policy.random_seed = 10;
      },
      [](auto& f) { f.policy.head_rule = engine::HeadRule::kUniform; },
      [](auto& f) { f.policy.head_rule = engine::HeadRule::kAdaKv; },
      [](auto& f) { f.policy.budget = 65; },
      [](auto& f) { f.policy.alpha = 0.2; },
      [](auto& f) { f.policy.beta = 0.5; },
      [](auto& f) { f.policy.layer_weights = kOther; },
      [](auto& f) { f.policy.head_rates = kWeights; },
      [](auto& f) { f.policy.head_rates = std::exchange(f.policy.layer_weights, {}); },
      with_selection(engine::Selection::kFull, none),
      with_selection(engine::Selection::kRandom, none),
      with_selection(engine::Selection::kRandom, [](auto& f) { f.policy.budget = 65; }),
      with_selection(engine::Selection::kRandom, [](auto& f) { f.policy.random_seed = 10; }),
      with_coverage(none),
      with_coverage([](auto& f) { f.policy.coverage = 0.6; }),
      with_coverage([](auto& f) { f.policy.max_budget = 513; }),
  };
  EXPECT_EQ(DistinctKeys(changes), changes.size());
}

TEST(CacheKey, WhatTheEngineDoesNotReadChangesNothing) {
  const std::vector<Change> unused = {[](auto&) {},
                                      [](auto& f) { f.policy.budget = 65; },
                                      [](auto& f) { f.policy.alpha = 0.2; },
                                      [](auto& f) { f.policy.beta = 0.5; },
                                      [](auto& f) { f.policy.random_seed = 10; },
                                      [](auto& f) { f.policy.importance = kOther; },
                                      [](auto& f) { f.policy.layer_weights = kOther; },
                                      [](auto& f) { f.policy.head_rates = kOther; },
                                      [](auto& f) { f.policy.voters = engine::Voters::kAll; },
                                      [](auto& f) { f.policy.head_rule = engine::HeadRule::kPool; },
                                      [](auto& f) { f.policy.layer_rule = {}; }};
  std::vector<Change> coverage, full;
  for (const Change& change : unused) {
    coverage.emplace_back([change](auto& f) {
      change(f);
      f.policy.coverage = 0.5;
    });
    full.emplace_back([change](auto& f) {
      change(f);
      f.policy.selection = engine::Selection::kFull;
    });
  }
  EXPECT_EQ(DistinctKeys(coverage), 1U);
  EXPECT_EQ(DistinctKeys(full), 1U);
  EXPECT_EQ(DistinctKeys({[](auto&) {}, [](auto& f) { f.policy.max_budget = 513; },
                          [](auto& f) { f.policy.random_seed = 10; },
                          [](auto& f) { f.policy.importance = kOther; }}),
            1U);
}

TEST(CacheKey, RulesThatReadNoRateDoNotDependOnIt) {
  const auto with = [](const Change& change) {
    return [change](CacheKeyFields& f) {
      f.policy.layer_rule = engine::LayerRule::kPyramid;
      f.policy.head_rule = engine::HeadRule::kAdaKv;
      change(f);
    };
  };
  EXPECT_EQ(DistinctKeys({with([](auto&) {}), with([](auto& f) { f.policy.alpha = 0.2; }),
                          with([](auto& f) { f.policy.beta = 0.5; }),
                          with([](auto& f) { f.policy.head_rates = kOther; }),
                          with([](auto& f) { f.policy.importance = kOther; }),
                          with([](auto& f) { f.policy.layer_weights = kOther; })}),
            1U);
}

TEST(CacheKey, NegativeZeroIsZero) {
  CacheKeyFields fields = Example();
  fields.policy.alpha = 0.0;
  const Digest key = CacheKey(fields);
  fields.policy.alpha = -0.0;
  EXPECT_EQ(CacheKey(fields), key);
}

}  // namespace
}  // namespace maskkv::arena
