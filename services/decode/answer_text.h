// SPDX-License-Identifier: Apache-2.0
//
// From committed tokens, which come in any order of positions, to the text of the answer as a
// reader may see it: what is decided from the left, in whole characters, never taken back. Ends the
// answer before the first stop string.
//
// The decided prefix is every token up to, without, the first mask or end token. Its text is a
// function of the tokens alone. A stop string is decided once no text that may still come could put
// another match before it, so that the answer does not depend on the order in which tokens were
// committed; text that could be the beginning of a stop string is held back until it is not.
//
// Invariants: what was given out is a prefix of the answer's text, and all of it once the answer
// has ended; no stop string occurs in what was given out. Not thread safe.
#ifndef MASKKV_SERVICES_DECODE_ANSWER_TEXT_H_
#define MASKKV_SERVICES_DECODE_ANSWER_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/engine/canvas.h"
#include "core/model/tokenizer.h"

namespace maskkv::decode {

class AnswerText {
 public:
  // tokenizer: borrowed; null: the text stays empty. stop: none of them empty, none without a
  // tokenizer.
  AnswerText(const model::Tokenizer* tokenizer, std::int64_t gen_length,
             std::vector<std::int32_t> stop_ids, std::vector<std::string> stop);

  // Before the first commit: (gen_length) ids of which all but mask_id are decided from the start.
  void Start(std::span<const std::int32_t> canvas, std::int32_t mask_id);

  // The canvas has so many positions more. Before the commits of the step that it grew after.
  void Grow(std::int64_t positions);

  // Takes a step's commits, each position once. Returns the text that may be given out now.
  std::string Commit(std::span<const engine::Prediction> committed);

  // A stop string is decided: further commits change nothing.
  bool stopped() const { return stopped_; }
  // Everything up to the answer's end is decided: a stop string, an end token, or the last
  // position.
  bool ended() const { return ended_; }

  // The answer so far. Before the end its text is what was given out, its tokens are the decided
  // ones; after a stop string the tokens are those that lie wholly before it.
  std::vector<std::int32_t> tokens() const;
  std::string text() const { return text_.substr(0, given_); }

  void CheckInvariants() const;

 private:
  // Where the text of a decided token ends, and whether a character that it began goes on after it.
  struct TokenEnd {
    std::size_t offset = 0;
    bool incomplete = false;
  };

  void Decide(std::int32_t id);
  void End();
  // Moves safe_ on over text that begins no match; finds a match that is decided.
  void Search();
  bool IsStopId(std::int32_t id) const;
  std::string Give(std::size_t end);

  // Constant after construction.
  const std::vector<std::int32_t> stop_ids_;
  const std::vector<std::string> stop_;

  std::optional<model::StreamingDecoder> decoder_;
  std::vector<std::optional<std::int32_t>> canvas_;  // by position
  std::vector<TokenEnd> ends_;                       // of the decided tokens
  std::string text_;                                 // of the decided tokens
  std::size_t safe_ = 0;                             // no match begins before it
  std::size_t given_ = 0;                            // given out; <= safe_
  bool stopped_ = false;                             // a match begins at safe_
  bool ended_ = false;
};

}  // namespace maskkv::decode

#endif  // MASKKV_SERVICES_DECODE_ANSWER_TEXT_H_
