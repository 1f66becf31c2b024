// SPDX-License-Identifier: Apache-2.0
//
// What a step looks at beside its choices: masks that are shown as a mix of their last prediction
// (mask_mixer.h), and the end of canvases that grow (growth.h).
#include <utility>
#include <vector>

#include "core/engine/decode.h"
#include "core/engine/token_sampler.h"

namespace maskkv::engine {

void Decoder::GatherMixes(const Sequence& sequence) {
  const Request& request = *sequence.request;
  if (!request.mixer) return;
  for (const std::int64_t position : request.canvas.candidates()) {
    const std::span<const transformer::WeightedToken> mix = request.mixer->MixOf(position);
    if (!mix.empty()) mixed_rows_.push_back({AnswerRow(sequence, position), mix});
  }
}

void Decoder::UpdateMixes(const Sequence& sequence, const TokenSampler& sampler) {
  Request& request = *sequence.request;
  if (!request.mixer) return;
  std::vector<std::int64_t> masks;
  std::vector<std::vector<decoding::TokenProbability>> best;
  const std::span<const std::int64_t> positions = QueryAnswers(sequence);
  for (std::int64_t row = 0; row < sequence.candidates; ++row) {
    const std::int64_t position = positions[static_cast<std::size_t>(row)];
    if (!request.canvas.masked(position)) continue;
    masks.push_back(position);
    best.push_back(sampler.choice(row).best);
  }
  request.mixer->Update(masks, std::move(best));
}

double Decoder::EndCertainty(const Sequence& sequence, const TokenSampler& sampler) const {
  const Canvas& canvas = sequence.request->canvas;
  if (!canvas.watches_end()) return 1;
  std::vector<double> masked;
  const std::span<const std::int64_t> positions = QueryAnswers(sequence);
  for (std::int64_t row = 0; row < sequence.candidates + sequence.watched; ++row) {
    if (positions[static_cast<std::size_t>(row)] < canvas.watched_from()) continue;
    masked.push_back(sampler.choice(row).watched);
  }
  return canvas.EndCertainty(masked);
}

}  // namespace maskkv::engine
