// SPDX-License-Identifier: Apache-2.0
#include "services/decode/answer_text.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "core/base/check.h"

namespace maskkv::decode {

AnswerText::AnswerText(const model::Tokenizer* tokenizer, std::int64_t gen_length,
                       std::vector<std::int32_t> stop_ids, std::vector<std::string> stop)
    : stop_ids_(std::move(stop_ids)),
      stop_(std::move(stop)),
      canvas_(static_cast<std::size_t>(gen_length)) {
  MASKKV_CHECK(tokenizer != nullptr || stop_.empty(), "stop strings need a tokenizer");
  if (tokenizer != nullptr) decoder_.emplace(*tokenizer, /*skip_special=*/true);
}

bool AnswerText::IsStopId(std::int32_t id) const {
  return std::find(stop_ids_.begin(), stop_ids_.end(), id) != stop_ids_.end();
}

void AnswerText::Start(std::span<const std::int32_t> canvas, std::int32_t mask_id) {
  MASKKV_CHECK(canvas.size() == canvas_.size() && ends_.empty(), "a whole canvas, before a commit");
  for (std::size_t i = 0; i < canvas.size(); ++i) {
    if (canvas[i] != mask_id) canvas_[i] = canvas[i];
  }
}

void AnswerText::Grow(std::int64_t positions) {
  canvas_.resize(canvas_.size() + static_cast<std::size_t>(positions));
}

std::string AnswerText::Commit(std::span<const engine::Prediction> committed) {
  for (const engine::Prediction& prediction : committed) {
    canvas_[static_cast<std::size_t>(prediction.position)] = prediction.token;
  }
  while (!ended_ && ends_.size() < canvas_.size() && canvas_[ends_.size()]) {
    const std::int32_t id = *canvas_[ends_.size()];
    if (IsStopId(id)) {
      End();
    } else {
      Decide(id);
    }
  }
  if (!ended_ && ends_.size() == canvas_.size()) End();
  return Give(safe_);
}

void AnswerText::Decide(std::int32_t id) {
  if (decoder_) text_ += decoder_->Push(id);
  ends_.push_back({text_.size(), decoder_ && decoder_->incomplete()});
  Search();
}

void AnswerText::End() {
  if (decoder_) text_ += decoder_->Finish();
  ended_ = true;
  Search();
}

void AnswerText::Search() {
  if (stopped_) return;
  for (; safe_ < text_.size(); ++safe_) {
    const std::string_view rest = std::string_view(text_).substr(safe_);
    bool may_match = false;
    for (const std::string& stop : stop_) {
      if (rest.starts_with(stop)) {
        stopped_ = ended_ = true;
        return;
      }
      may_match = may_match || std::string_view(stop).starts_with(rest);
    }
    if (may_match && !ended_) return;
  }
}

std::string AnswerText::Give(std::size_t end) {
  std::string text = text_.substr(given_, end - given_);
  given_ = end;
  return text;
}

std::vector<std::int32_t> AnswerText::tokens() const {
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < ends_.size(); ++i) {
    const auto& [offset, incomplete] = ends_[i];
    if (stopped_ && (offset > safe_ || (offset == safe_ && incomplete))) break;
    ids.push_back(*canvas_[i]);
  }
  return ids;
}

void AnswerText::CheckInvariants() const {
  MASKKV_CHECK(given_ <= safe_ && safe_ <= text_.size(), "only text without a match is given out");
  MASKKV_CHECK(!stopped_ || ended_, "a stop string ends the answer");
  MASKKV_CHECK(!ended_ || stopped_ || safe_ == text_.size(), "nothing is held back at the end");
  MASKKV_CHECK(ends_.size() <= canvas_.size(), "a token a position");
  const std::string_view given = std::string_view(text_).substr(0, given_);
  for (const std::string& stop : stop_) {
    MASKKV_CHECK(given.find(stop) == std::string_view::npos, "no stop string is given out");
  }
}

}  // namespace maskkv::decode
