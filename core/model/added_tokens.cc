// SPDX-License-Identifier: Apache-2.0
#include "core/model/added_tokens.h"

#include "core/base/status_macros.h"

namespace maskkv::model {

void AddedTokens::Add(std::string_view content, std::int32_t id, bool special) {
  std::size_t node = 0;
  for (const char c : content) {
    const auto [entry, is_new] = nodes_[node].next.try_emplace(c, nodes_.size());
    node = entry->second;
    if (is_new) nodes_.emplace_back();
  }
  nodes_[node].id = id;
  nodes_[node].special = special;
}

AddedTokens::Match AddedTokens::LongestAt(std::string_view text) const {
  Match longest;
  std::size_t node = 0;
  for (std::size_t length = 0; length < text.size();) {
    const auto entry = nodes_[node].next.find(text[length]);
    if (entry == nodes_[node].next.end()) break;
    node = entry->second;
    ++length;
    if (nodes_[node].id >= 0) longest = {length, nodes_[node].id, nodes_[node].special};
  }
  return longest;
}

absl::Status AddedTokens::Split(std::string_view text, bool plain_special,
                                kernels::FunctionRef<absl::Status(std::string_view)> on_text,
                                kernels::FunctionRef<void(std::int32_t)> on_token) const {
  std::size_t text_begin = 0;
  std::size_t at = 0;
  while (at < text.size()) {
    const Match match = LongestAt(text.substr(at));
    if (match.length == 0) {
      ++at;
      continue;
    }
    if (!(match.special && plain_special)) {
      if (text_begin < at) {
        MASKKV_RETURN_IF_ERROR(on_text(text.substr(text_begin, at - text_begin)));
      }
      on_token(match.id);
      text_begin = at + match.length;
    }
    at += match.length;
  }
  if (text_begin < text.size()) return on_text(text.substr(text_begin));
  return absl::OkStatus();
}

}  // namespace maskkv::model
