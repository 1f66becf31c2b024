// SPDX-License-Identifier: Apache-2.0
#include "core/policy/named_policy.h"

#include <algorithm>
#include <iterator>
#include <optional>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/base/status_macros.h"

namespace maskkv::policy {
namespace {

template <typename Part>
struct Word {
  const char* word;
  Part part;
};

constexpr Word<Voters> kVoters[] = {
    {"masks", Voters::kMasks},
    {"masks-front", Voters::kMasksFront},
    {"masks-second", Voters::kMasksSecond},
    {"masks-third", Voters::kMasksThird},
    {"masks-back", Voters::kMasksBack},
    {"prompt", Voters::kPrompt},
    {"all", Voters::kAll},
    {"window", Voters::kWindow},
    {"recent", Voters::kRecent},
    {"random", Voters::kRandom},
    {"full", Voters::kFull},
};

constexpr Word<LayerRule> kLayers[] = {
    {"uniform", LayerRule::kUniform}, {"offline", LayerRule::kOffline},
    {"online", LayerRule::kOnline},   {"pyramid", LayerRule::kPyramid},
    {"squeeze", LayerRule::kSqueeze}, {"pool", LayerRule::kPool},
};

constexpr Word<HeadRule> kHeads[] = {
    {"uniform", HeadRule::kUniform},
    {"preference", HeadRule::kPreference},
    {"adakv", HeadRule::kAdaKv},
    {"pool", HeadRule::kPool},
};

constexpr Word<PolicyParts> kNames[] = {
    {"maskkv", {Voters::kMasks, LayerRule::kOffline, HeadRule::kPreference}},
    {"maskkv-online", {Voters::kMasks, LayerRule::kOnline, HeadRule::kPreference}},
    {"maskkv-no-layers", {Voters::kMasks, LayerRule::kUniform, HeadRule::kPreference}},
    {"maskkv-no-heads", {Voters::kMasks, LayerRule::kOffline, HeadRule::kUniform}},
    {"mask-voting", {Voters::kMasks, LayerRule::kUniform, HeadRule::kUniform}},
    {"maskkv-front", {Voters::kMasksFront, LayerRule::kOffline, HeadRule::kPreference}},
    {"maskkv-second", {Voters::kMasksSecond, LayerRule::kOffline, HeadRule::kPreference}},
    {"maskkv-third", {Voters::kMasksThird, LayerRule::kOffline, HeadRule::kPreference}},
    {"maskkv-back", {Voters::kMasksBack, LayerRule::kOffline, HeadRule::kPreference}},
    {"maskkv-pool", {Voters::kMasks, LayerRule::kPool, HeadRule::kPool}},
    {"maskkv-head-pool", {Voters::kMasks, LayerRule::kOffline, HeadRule::kPool}},
    {"prompt-voting", {Voters::kPrompt, LayerRule::kUniform, HeadRule::kUniform}},
    {"all-voting", {Voters::kAll, LayerRule::kUniform, HeadRule::kUniform}},
    {"snapkv", {Voters::kWindow, LayerRule::kUniform, HeadRule::kUniform}},
    {"pyramidkv", {Voters::kWindow, LayerRule::kPyramid, HeadRule::kUniform}},
    {"squeeze", {Voters::kWindow, LayerRule::kSqueeze, HeadRule::kUniform}},
    {"adakv", {Voters::kWindow, LayerRule::kUniform, HeadRule::kAdaKv}},
    {"streaming", {Voters::kRecent, LayerRule::kUniform, HeadRule::kUniform}},
    {"random", {Voters::kRandom, LayerRule::kUniform, HeadRule::kUniform}},
    {"full", {Voters::kFull, LayerRule::kUniform, HeadRule::kUniform}},
};

template <typename Words>
std::string Listed(const Words& words) {
  return absl::StrJoin(words, ", ",
                       [](std::string* out, const auto& entry) { out->append(entry.word); });
}

// A message shows no more of a name than this, and no control characters.
constexpr std::size_t kShown = 64;

std::string Shown(std::string_view text) {
  std::string shown(text.substr(0, kShown));
  std::ranges::replace_if(
      shown, [](char c) { return c < ' ' || c > '~'; }, '?');
  return shown;
}

template <typename Words>
auto Find(const Words& words, std::string_view word)
    -> std::optional<decltype(std::begin(words)->part)> {
  for (const auto& entry : words) {
    if (word == entry.word) return entry.part;
  }
  return std::nullopt;
}

template <typename Words, typename Part>
std::string_view WordOf(const Words& words, Part part) {
  for (const auto& entry : words) {
    if (entry.part == part) return entry.word;
  }
  return {};
}

template <typename Words>
absl::Status UnknownPart(std::string_view kind, std::string_view found, const Words& words) {
  return absl::InvalidArgumentError(absl::StrFormat("policy: %s: expected one of %s, found \"%s\"",
                                                    kind, Listed(words), Shown(found)));
}

}  // namespace

std::vector<std::string> PolicyNames() {
  std::vector<std::string> names;
  for (const auto& entry : kNames) names.emplace_back(entry.word);
  return names;
}

absl::Status CheckParts(const PolicyParts& parts) {
  const bool nobody = parts.voters == Voters::kRecent || parts.voters == Voters::kRandom;
  if (nobody && parts.heads != HeadRule::kUniform) {
    return absl::InvalidArgumentError(
        absl::StrFormat("policy: heads: expected uniform with voters %s, found %s",
                        WordOf(kVoters, parts.voters), WordOf(kHeads, parts.heads)));
  }
  if (parts.layers != LayerRule::kPool || parts.voters == Voters::kFull) return absl::OkStatus();
  if (parts.heads != HeadRule::kPool) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "policy: heads: expected pool with layers pool, found %s", WordOf(kHeads, parts.heads)));
  }
  if (parts.voters == Voters::kWindow) {
    return absl::InvalidArgumentError(
        "policy: voters: expected masks, masks-front, masks-second, masks-third, masks-back, "
        "prompt "
        "or all with layers pool, found window");
  }
  return absl::OkStatus();
}

absl::StatusOr<PolicyParts> ParsePolicy(std::string_view name) {
  if (const auto named = Find(kNames, name)) return *named;
  const std::vector<std::string> words =
      absl::StrSplit(absl::string_view(name.data(), name.size()), '/');
  if (words.size() != 3) {
    return absl::InvalidArgumentError(
        absl::StrFormat("policy: expected one of %s, or VOTERS/LAYERS/HEADS, found \"%s\"",
                        Listed(kNames), Shown(name)));
  }
  const auto voters = Find(kVoters, words[0]);
  if (!voters) return UnknownPart("voters", words[0], kVoters);
  const auto layers = Find(kLayers, words[1]);
  if (!layers) return UnknownPart("layers", words[1], kLayers);
  const auto heads = Find(kHeads, words[2]);
  if (!heads) return UnknownPart("heads", words[2], kHeads);
  if (*voters == Voters::kFull) {
    return PolicyParts{Voters::kFull, LayerRule::kUniform, HeadRule::kUniform};
  }
  const PolicyParts parts{*voters, *layers, *heads};
  MASKKV_RETURN_IF_ERROR(CheckParts(parts));
  return parts;
}

std::string PolicyName(const PolicyParts& parts) {
  if (const std::string_view name = WordOf(kNames, parts); !name.empty()) return std::string(name);
  const std::string_view layers =
      parts.layers == LayerRule::kWeights ? "weights" : WordOf(kLayers, parts.layers);
  return absl::StrFormat("%s/%s/%s", WordOf(kVoters, parts.voters), layers,
                         WordOf(kHeads, parts.heads));
}

std::string PolicyLabel(const PolicyParts& parts) {
  const std::string_view name = WordOf(kNames, parts);
  return std::string(name.empty() ? kCustomPolicy : name);
}

}  // namespace maskkv::policy
