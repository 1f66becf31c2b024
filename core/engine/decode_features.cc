// SPDX-License-Identifier: Apache-2.0
//
// What a step does where some of its requests keep features of their response (response_cache.h):
// in each layer the rows that are active there, of all requests, are gathered, advanced together
// and put back; the other rows of those requests add what is kept of them.
#include <algorithm>
#include <cstddef>

#include "core/engine/decode.h"
#include "core/transformer/row_ranges.h"

namespace maskkv::engine {

using transformer::ForRowRanges;

void Decoder::BeginFeatures() {
  features_ = false;
  for (const Sequence& sequence : sequences_) {
    ResponseCache* const cache = sequence.request->response_cache.get();
    if (cache == nullptr) continue;
    cache->Begin(sequence.rows);
    features_ = true;
  }
}

void Decoder::GatherActive(std::int64_t layer, bool masked_rows_only) {
  const std::int64_t width = transformer_.hidden();
  const auto rows = static_cast<std::int64_t>(tokens_.size());
  const std::int64_t ld = 2 * transformer_.kv_width();
  transformer_.ProjectValues(layer, hidden_.data() + whole_rows_ * width, rows - whole_rows_,
                             kv_.data() + whole_rows_ * ld);
  active_rows_.clear();
  for (Sequence& sequence : sequences_) {
    const std::size_t first = active_rows_.size();
    if (ResponseCache* const cache = sequence.request->response_cache.get()) {
      const float* const pairs = kv_.data() + sequence.first_row * ld;
      if (cache->whole()) {
        cache->KeepPairs(layer, pairs);
      } else {
        cache->Choose(layer, pairs, transformer_.pool());
      }
      for (const std::int64_t row : cache->layer(layer).chosen) {
        active_rows_.push_back(sequence.first_row + row);
      }
    } else if (masked_rows_only) {
      const std::int64_t response = FirstResponseRow(sequence) - shift();
      for (const std::int64_t answer : QueryAnswers(sequence)) {
        active_rows_.push_back(response + answer);
      }
    } else {
      for (std::int64_t i = 0; i < sequence.rows; ++i)
        active_rows_.push_back(sequence.first_row + i);
    }
    sequence.active = static_cast<std::int64_t>(active_rows_.size() - first);
  }
  const auto active = static_cast<std::int64_t>(active_rows_.size());
  active_hidden_.Resize(active * width);
  active_positions_.resize(active_rows_.size());
  ForRowRanges(transformer_.pool(), active, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t row = active_rows_[static_cast<std::size_t>(i)];
      std::copy_n(hidden_.data() + row * width, width, active_hidden_.data() + i * width);
      active_positions_[static_cast<std::size_t>(i)] = positions_[static_cast<std::size_t>(row)];
    }
  });
  ReplaceKeys(layer);
  active_outputs_.Resize(2 * active * width);
}

void Decoder::ReplaceKeys(std::int64_t layer) {
  const std::int64_t key_width = transformer_.kv_width();
  std::int64_t count = 0;  // of the last active rows
  rotations_in_between_.clear();
  for (const Sequence& sequence : sequences_) {
    if (!sequence.between()) continue;
    count += sequence.active;
    transformer::AddRopeRun({sequence.active, sequence.request->rope.get()}, rotations_in_between_);
  }
  const auto first = static_cast<std::int64_t>(active_rows_.size()) - count;
  keys_in_between_.Resize(count * 2 * key_width);
  transformer_.ProjectKeys(layer, active_hidden_.data() + first * transformer_.hidden(), count,
                           active_positions_.data() + first, rotations_in_between_,
                           keys_in_between_.data());
  const float* key = keys_in_between_.data();
  for (const Sequence& sequence : sequences_) {
    if (!sequence.between()) continue;
    ResponseCache::Layer& kept = sequence.request->response_cache->layer(layer);
    for (const std::int64_t row : kept.chosen) {
      std::copy_n(key, key_width, kept.pairs.data() + row * 2 * key_width);
      key += 2 * key_width;
    }
  }
}

transformer::SublayerOutputs Decoder::ActiveOutputs(std::int64_t first) {
  if (!features_) return {};
  const std::int64_t width = transformer_.hidden();
  float* const attention = active_outputs_.data() + first * width;
  return {attention, attention + std::ssize(active_rows_) * width};
}

void Decoder::ScatterActive(std::int64_t layer) {
  const std::int64_t width = transformer_.hidden();
  const std::span<const std::int64_t> rows = active_rows_;
  std::int64_t first = 0;
  for (const Sequence& sequence : sequences_) {
    ResponseCache* const cache = sequence.request->response_cache.get();
    const transformer::SublayerOutputs outputs = ActiveOutputs(first);
    const float* const hidden = active_hidden_.data() + first * width;
    const std::span<const std::int64_t> mine =
        rows.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(sequence.active));
    if (cache != nullptr && !cache->whole()) ReuseFeatures(sequence, cache->layer(layer));
    ForRowRanges(transformer_.pool(), sequence.active, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t row = mine[static_cast<std::size_t>(i)];
        std::copy_n(hidden + i * width, width, hidden_.data() + row * width);
        if (cache == nullptr) continue;
        ResponseCache::Layer& kept = cache->layer(layer);
        const std::int64_t at = (row - sequence.first_row) * width;
        std::copy_n(outputs.attention + i * width, width, kept.attention.data() + at);
        std::copy_n(outputs.feed_forward + i * width, width, kept.feed_forward.data() + at);
      }
    });
    first += sequence.active;
  }
}

void Decoder::ReuseFeatures(const Sequence& sequence, const ResponseCache::Layer& kept) {
  const std::int64_t width = transformer_.hidden();
  ForRowRanges(transformer_.pool(), sequence.rows, [&](std::int64_t begin, std::int64_t end) {
    auto chosen = std::ranges::lower_bound(kept.chosen, begin);
    for (std::int64_t row = begin; row < end; ++row) {
      if (chosen != kept.chosen.end() && *chosen == row) {
        ++chosen;
        continue;
      }
      float* const hidden = hidden_.data() + (sequence.first_row + row) * width;
      kernels::AddInto(kept.attention.data() + row * width, width, hidden);
      kernels::AddInto(kept.feed_forward.data() + row * width, width, hidden);
    }
  });
}

const ResponseCache* Decoder::FindResponseCache(RequestId id) const {
  const auto it = requests_.find(id);
  return it == requests_.end() ? nullptr : it->second.response_cache.get();
}

}  // namespace maskkv::engine
