// SPDX-License-Identifier: Apache-2.0
//
// What a step measures for requests that ask for it: the attention of the rows that predict its
// candidates to their kept pairs, in every layer.
#include <algorithm>
#include <vector>

#include "core/engine/decode.h"

namespace maskkv::engine {

// A step that recomputes a share of the rows has no attention of the others.
bool Decoder::Measures(const Sequence& sequence) {
  const ResponseCache* const cache = sequence.request->response_cache.get();
  return sequence.request->refresh.measures() && (cache == nullptr || cache->whole());
}

void Decoder::Watch(Sequence& sequence, std::int64_t first, std::int64_t block_row,
                    transformer::AttentionSource& source) {
  if (!Measures(sequence)) return;
  const std::int64_t heads = transformer_.shape().heads;
  watched_log_sum_exp_.Resize(heads * transformer::kRowBlock);
  source.log_sum_exp = watched_log_sum_exp_.data() + heads * block_row;
  watched_.push_back({&sequence, first, block_row, source});
}

void Decoder::MeasureKept(bool masked_rows_only) {
  std::vector<std::int64_t> rows;
  for (const WatchedRun& run : watched_) {
    Sequence& sequence = *run.sequence;
    const bool queries = masked_rows_only && sequence.request->response_cache == nullptr;
    const std::int64_t response = std::ssize(sequence.request->request.prompt);
    rows.clear();
    for (std::int64_t i = 0; i < sequence.candidates; ++i) {
      const std::int64_t answer = QueryAnswers(sequence)[static_cast<std::size_t>(i)];
      const std::int64_t row = (queries ? i : response + answer - shift()) - run.first;
      if (row >= 0 && row < run.source.rows) rows.push_back(row);
    }
    sequence.kept_mass +=
        kept_mass_.Sum(transformer_, run.source,
                       transformer_.queries() + run.block_row * transformer_.query_width(), rows);
  }
  watched_.clear();
}

std::optional<double> Decoder::KeptMass(const Sequence& sequence) const {
  if (!Measures(sequence)) return std::nullopt;
  const std::int64_t shares =
      transformer_.config().layers * transformer_.shape().heads * sequence.candidates;
  return std::min(1.0, sequence.kept_mass / static_cast<double>(shares));  // rounding aside
}

}  // namespace maskkv::engine
