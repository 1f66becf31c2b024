// SPDX-License-Identifier: Apache-2.0
//
// Tokens that are found in a text before anything else is done with it, such as "<|eot_id|>": the
// `added_tokens` of tokenizer.json. At each place the longest one wins, from left to right.
//
// Thread safety: immutable once filled.
#ifndef MASKKV_CORE_MODEL_ADDED_TOKENS_H_
#define MASKKV_CORE_MODEL_ADDED_TOKENS_H_

#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "kernels/base/function_ref.h"

namespace maskkv::model {

class AddedTokens {
 public:
  // REQUIRES: content is not empty and was not added before.
  void Add(std::string_view content, std::int32_t id, bool special);

  // Calls on_text(part) and on_token(id) for the parts of `text` in order; parts are not empty.
  // With plain_special a special token's text is ordinary text (but what it covers is still not
  // searched for other tokens). Stops at the first error of on_text and returns it.
  absl::Status Split(std::string_view text, bool plain_special,
                     kernels::FunctionRef<absl::Status(std::string_view)> on_text,
                     kernels::FunctionRef<void(std::int32_t)> on_token) const;

 private:
  struct Node {
    std::map<char, std::size_t> next;
    std::int32_t id = -1;
    bool special = false;
  };
  struct Match {
    std::size_t length = 0;  // 0: none
    std::int32_t id = -1;
    bool special = false;
  };
  Match LongestAt(std::string_view text) const;

  std::vector<Node> nodes_ = std::vector<Node>(1);  // a trie; the root is the first
};

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_ADDED_TOKENS_H_
