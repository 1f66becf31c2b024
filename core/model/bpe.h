// SPDX-License-Identifier: Apache-2.0
//
// Byte-pair encoding: a piece of text becomes its bytes, then the pair of neighbours whose merge
// was learned first is merged, leftmost first among equals, until no pair has a merge (Sennrich et
// al. 2016, on bytes as GPT-2 does). Merges are a table (left id, right id) -> (rank, merged id).
//
// Thread safety: immutable after construction; Append writes only its arguments.
#ifndef MASKKV_CORE_MODEL_BPE_H_
#define MASKKV_CORE_MODEL_BPE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace maskkv::model {

class BytePairEncoder {
 public:
  static constexpr std::int32_t kNoToken = -1;

  struct Merge {
    std::int32_t rank = 0;
    std::int32_t merged = 0;
  };
  static std::uint64_t PairKey(std::int32_t left, std::int32_t right) {
    return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) |
           static_cast<std::uint32_t>(right);
  }
  using MergeTable = std::unordered_map<std::uint64_t, Merge>;
  using Words = std::unordered_map<std::string, std::int32_t>;

  // byte_ids[b] is the token of the single byte b, or kNoToken for a byte that valid UTF-8 never
  // holds. If `words` is given (ignore_merges), a piece that is a word becomes that token as it is.
  BytePairEncoder(std::array<std::int32_t, 256> byte_ids, MergeTable merges,
                  std::optional<Words> words);

  // Appends the tokens of a piece, a part of a valid UTF-8 text. Time O(n log n) in its bytes.
  void Append(std::string_view piece, std::vector<std::int32_t>& ids) const;

 private:
  std::array<std::int32_t, 256> byte_ids_;
  MergeTable merges_;
  std::optional<Words> words_;
};

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_BPE_H_
