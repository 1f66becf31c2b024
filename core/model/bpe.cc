// SPDX-License-Identifier: Apache-2.0
#include "core/model/bpe.h"

#include <queue>
#include <utility>

#include "core/base/check.h"

namespace maskkv::model {
namespace {

// The symbols of a piece, linked in order. A symbol that was merged into its left neighbour stays
// in the array with token kNoToken.
struct Symbol {
  std::int32_t token;
  std::int32_t previous;
  std::int32_t next;  // kEnd for the last one
};
constexpr std::int32_t kEnd = -1;

struct Candidate {
  std::int32_t rank;
  std::int32_t at;  // the left symbol
  std::int32_t merged;
};
// The queue's greatest element is the first merge, the leftmost among equals.
struct IsLater {
  bool operator()(const Candidate& a, const Candidate& b) const {
    return std::pair(a.rank, a.at) > std::pair(b.rank, b.at);
  }
};

class MergeLoop {
 public:
  MergeLoop(const BytePairEncoder::MergeTable& merges, std::vector<Symbol> symbols)
      : merges_(merges), symbols_(std::move(symbols)) {}

  void Run() {
    for (std::int32_t at = 0; at + 1 < static_cast<std::int32_t>(symbols_.size()); ++at) Offer(at);
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      // An entry is stale if its symbols have changed since. What the package of reference checks
      // is the merged token alone: another pair at the same place that gives the same token goes.
      const BytePairEncoder::Merge* merge = Find(top.at);
      if (merge != nullptr && merge->merged == top.merged) Apply(top);
    }
  }

  const std::vector<Symbol>& symbols() const { return symbols_; }

 private:
  Symbol& at(std::int32_t index) { return symbols_[static_cast<std::size_t>(index)]; }

  // The merge of a symbol with the one after it, nullptr if there is none.
  const BytePairEncoder::Merge* Find(std::int32_t left) {
    const Symbol& symbol = at(left);
    if (symbol.token == BytePairEncoder::kNoToken || symbol.next == kEnd) return nullptr;
    const auto found = merges_.find(BytePairEncoder::PairKey(symbol.token, at(symbol.next).token));
    return found == merges_.end() ? nullptr : &found->second;
  }

  void Offer(std::int32_t left) {
    if (const BytePairEncoder::Merge* merge = Find(left)) {
      queue_.push({merge->rank, left, merge->merged});
    }
  }

  void Apply(const Candidate& top) {
    Symbol& left = at(top.at);
    Symbol& right = at(left.next);
    left.token = top.merged;
    left.next = right.next;
    right.token = BytePairEncoder::kNoToken;
    if (left.next != kEnd) at(left.next).previous = top.at;
    if (left.previous != kEnd) Offer(left.previous);
    Offer(top.at);
  }

  const BytePairEncoder::MergeTable& merges_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Candidate, std::vector<Candidate>, IsLater> queue_;
};

}  // namespace

BytePairEncoder::BytePairEncoder(std::array<std::int32_t, 256> byte_ids, MergeTable merges,
                                 std::optional<Words> words)
    : byte_ids_(byte_ids), merges_(std::move(merges)), words_(std::move(words)) {}

void BytePairEncoder::Append(std::string_view piece, std::vector<std::int32_t>& ids) const {
  if (words_) {
    if (const auto word = words_->find(std::string(piece)); word != words_->end()) {
      ids.push_back(word->second);
      return;
    }
  }
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  for (std::size_t i = 0; i < piece.size(); ++i) {
    const std::int32_t token = byte_ids_[static_cast<std::uint8_t>(piece[i])];
    MASKKV_CHECK(token != kNoToken, "pieces are valid UTF-8");
    const auto at = static_cast<std::int32_t>(i);
    symbols.push_back({token, at - 1, i + 1 < piece.size() ? at + 1 : kEnd});
  }
  MergeLoop loop(merges_, std::move(symbols));
  loop.Run();
  for (const Symbol& symbol : loop.symbols()) {
    if (symbol.token != kNoToken) ids.push_back(symbol.token);
  }
}

}  // namespace maskkv::model
