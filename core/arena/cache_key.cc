// SPDX-License-Identifier: Apache-2.0
#include "core/arena/cache_key.h"

#include <bit>
#include <cstddef>
#include <vector>

#include "core/base/check.h"
#include "core/base/sha256.h"

namespace maskkv::arena {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are hashed as they lie");

constexpr std::string_view kVersionTag = "maskkv cache key 6";
constexpr std::string_view kCopyTag = "over a copy of the document";
constexpr std::byte kDocument{1}, kQuestion{2};  // roles of prompt tokens

// Every field is a part of its own, in the order of the calls.
class KeyHash {
 public:
  void Text(std::string_view text) { hash_.AddPart(text); }
  void Bytes(std::span<const std::byte> bytes) { hash_.AddPart(bytes); }
  void Number(std::uint64_t number) { hash_.AddPart(std::as_bytes(std::span(&number, 1))); }
  void Number(std::int64_t number) { Number(static_cast<std::uint64_t>(number)); }
  void Real(double number) { Reals({&number, 1}); }
  void Reals(std::span<const double> numbers) {
    std::vector<double> canonical;
    canonical.reserve(numbers.size());
    for (const double number : numbers) {
      MASKKV_CHECK(number == number, "a key holds no NaN");
      canonical.push_back(number == 0 ? 0 : number);  // one zero
    }
    hash_.AddPart(std::as_bytes(std::span(canonical)));
  }
  Digest Finish() { return hash_.Finish(); }

 private:
  Sha256 hash_;
};

// The fields that the engine reads, the others at their defaults.
CacheKeyPolicy UsedPart(const CacheKeyPolicy& all) {
  CacheKeyPolicy used;
  used.selection = all.selection;
  switch (all.selection) {
    case engine::Selection::kFull:
      return used;
    case engine::Selection::kRandom:
      used.budget = all.budget;
      used.random_seed = all.random_seed;
      return used;
    case engine::Selection::kMaskKv:
      break;
  }
  if (all.coverage != 0) {
    used.coverage = all.coverage;
    used.max_budget = all.max_budget;
    return used;
  }
  used = all;
  used.max_budget = 0;
  if (all.voters != engine::Voters::kRandom) used.random_seed = 0;
  if (!policy::NeedsImportance(all.layer_rule)) used.importance = {};
  if (all.layer_rule != engine::LayerRule::kWeights) used.layer_weights = {};
  if (!policy::UsesBeta(all.layer_rule)) used.beta = 0;
  if (all.head_rule != engine::HeadRule::kPreference) used.head_rates = {};
  if (all.head_rule != engine::HeadRule::kPreference || !all.head_rates.empty()) {
    used.alpha = 0;  // head rates are in its place
  }
  return used;
}

}  // namespace

Digest CacheKey(const CacheKeyFields& fields) {
  const auto document = static_cast<std::size_t>(fields.document_tokens);
  MASKKV_CHECK(fields.document_tokens >= 0 && document <= fields.tokens.size(),
               "the document is a part of the prompt");
  std::vector<std::byte> roles(fields.tokens.size(), kQuestion);
  for (std::size_t i = 0; i < document; ++i) roles[i] = kDocument;

  KeyHash hash;
  hash.Text(kVersionTag);
  hash.Text(fields.tenant);
  hash.Bytes(fields.model_fingerprint);
  hash.Bytes(std::as_bytes(fields.tokens));
  hash.Bytes(roles);
  hash.Number(fields.masks);
  hash.Bytes(std::as_bytes(fields.response));
  hash.Bytes(std::as_bytes(fields.suffix));
  hash.Text(fields.rope_scaling);
  hash.Text(kernels::Name(fields.compute));
  hash.Text(kernels::Name(fields.dtype));
  const CacheKeyPolicy policy = UsedPart(fields.policy);
  hash.Number(static_cast<std::uint64_t>(policy.selection));
  hash.Number(static_cast<std::uint64_t>(policy.voters));
  hash.Number(static_cast<std::uint64_t>(policy.layer_rule));
  hash.Number(static_cast<std::uint64_t>(policy.head_rule));
  hash.Number(policy.budget);
  hash.Real(policy.coverage);
  hash.Number(policy.max_budget);
  hash.Real(policy.alpha);
  hash.Real(policy.beta);
  hash.Number(policy.random_seed);
  hash.Reals(policy.importance);
  hash.Reals(policy.layer_weights);
  hash.Reals(policy.head_rates);
  if (fields.copy_entry_id != 0) {  // so that the keys of all others stay what they were
    hash.Text(kCopyTag);
    hash.Number(fields.copy_epoch);
    hash.Number(fields.copy_entry_id);
  }
  return hash.Finish();
}

}  // namespace maskkv::arena
