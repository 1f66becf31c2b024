// SPDX-License-Identifier: Apache-2.0
#include "core/engine/feature_batch.h"

#include <algorithm>
#include <cstddef>
#include <iterator>

#include "core/transformer/row_ranges.h"
#include "kernels/activation/add.h"

namespace maskkv::engine {

using transformer::ForRowRanges;

void FeatureBatch::Begin(const Rows& rows) {
  rows_ = rows;
  in_use_ = false;
  sequences_.clear();
}

void FeatureBatch::Add(const Sequence& sequence) {
  if (sequence.cache != nullptr) {
    sequence.cache->Begin(sequence.rows);
    in_use_ = true;
  }
  sequences_.push_back(sequence);
}

void FeatureBatch::Gather(std::int64_t layer, bool last) {
  const std::int64_t width = transformer_.hidden();
  const std::int64_t ld = 2 * transformer_.kv_width();
  transformer_.ProjectValues(layer, rows_.hidden + rows_.whole * width, rows_.total - rows_.whole,
                             rows_.pairs + rows_.whole * ld);
  active_.clear();
  for (Sequence& sequence : sequences_) {
    const std::int64_t first = std::ssize(active_);
    Choose(layer, last, sequence);
    sequence.active = std::ssize(active_) - first;
  }
  hidden_.Resize(std::ssize(active_) * width);
  positions_.resize(active_.size());
  outputs_.Resize(2 * std::ssize(active_) * width);
  ForRowRanges(transformer_.pool(), std::ssize(active_), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t row = active_[static_cast<std::size_t>(i)];
      std::copy_n(rows_.hidden + row * width, width, hidden_.data() + i * width);
      positions_[static_cast<std::size_t>(i)] = rows_.positions[row];
    }
  });
  ReplaceKeys(layer);
}

void FeatureBatch::Choose(std::int64_t layer, bool last, Sequence& sequence) {
  if (sequence.cache != nullptr) {
    const float* const pairs = rows_.pairs + sequence.first_row * 2 * transformer_.kv_width();
    if (sequence.cache->whole()) {
      sequence.cache->KeepPairs(layer, pairs);
    } else {
      sequence.cache->Choose(layer, pairs, transformer_.pool());
    }
    for (const std::int64_t row : sequence.cache->layer(layer).chosen) {
      active_.push_back(sequence.first_row + row);
    }
  } else if (last) {
    for (const std::int64_t answer : sequence.answers) {
      active_.push_back(sequence.first_answer + answer);
    }
  } else {
    for (std::int64_t i = 0; i < sequence.rows; ++i) active_.push_back(sequence.first_row + i);
  }
}

void FeatureBatch::ReplaceKeys(std::int64_t layer) {
  const std::int64_t width = transformer_.kv_width();
  std::int64_t count = 0;  // of the last active rows
  rotations_.clear();
  for (const Sequence& sequence : sequences_) {
    if (!sequence.between()) continue;
    count += sequence.active;
    transformer::AddRopeRun({sequence.active, sequence.rope}, rotations_);
  }
  const std::int64_t first = std::ssize(active_) - count;
  keys_.Resize(count * 2 * width);
  transformer_.ProjectKeys(layer, hidden_.data() + first * transformer_.hidden(), count,
                           positions_.data() + first, rotations_, keys_.data());
  const float* key = keys_.data();
  for (const Sequence& sequence : sequences_) {
    if (!sequence.between()) continue;
    ResponseCache::Layer& kept = sequence.cache->layer(layer);
    for (const std::int64_t row : kept.chosen) {
      std::copy_n(key, width, kept.pairs.data() + row * 2 * width);
      key += 2 * width;
    }
  }
}

transformer::SublayerOutputs FeatureBatch::Outputs(std::int64_t first) {
  if (!in_use_) return {};
  const std::int64_t width = transformer_.hidden();
  float* const attention = outputs_.data() + first * width;
  return {attention, attention + std::ssize(active_) * width};
}

void FeatureBatch::Scatter(std::int64_t layer) {
  const std::int64_t width = transformer_.hidden();
  std::int64_t first = 0;
  for (const Sequence& sequence : sequences_) {
    ResponseCache::Layer* const kept =
        sequence.cache == nullptr ? nullptr : &sequence.cache->layer(layer);
    if (sequence.between()) Reuse(sequence, *kept);
    const transformer::SublayerOutputs outputs = Outputs(first);
    const float* const hidden = hidden_.data() + first * width;
    const std::int64_t* const rows = active_.data() + first;
    ForRowRanges(transformer_.pool(), sequence.active, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        std::copy_n(hidden + i * width, width, rows_.hidden + rows[i] * width);
        if (kept == nullptr) continue;
        const std::int64_t at = (rows[i] - sequence.first_row) * width;
        std::copy_n(outputs.attention + i * width, width, kept->attention.data() + at);
        std::copy_n(outputs.feed_forward + i * width, width, kept->feed_forward.data() + at);
      }
    });
    first += sequence.active;
  }
}

void FeatureBatch::Reuse(const Sequence& sequence, const ResponseCache::Layer& kept) {
  const std::int64_t width = transformer_.hidden();
  ForRowRanges(transformer_.pool(), sequence.rows, [&](std::int64_t begin, std::int64_t end) {
    auto chosen = std::ranges::lower_bound(kept.chosen, begin);
    for (std::int64_t row = begin; row < end; ++row) {
      if (chosen != kept.chosen.end() && *chosen == row) {
        ++chosen;
        continue;
      }
      float* const hidden = rows_.hidden + (sequence.first_row + row) * width;
      kernels::AddInto(kept.attention.data() + row * width, width, hidden);
      kernels::AddInto(kept.feed_forward.data() + row * width, width, hidden);
    }
  });
}

}  // namespace maskkv::engine
