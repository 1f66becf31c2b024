// SPDX-License-Identifier: Apache-2.0
#include "core/transformer/feed_forward.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "core/base/scoped_timer.h"
#include "core/transformer/row_ranges.h"
#include "kernels/activation/swiglu.h"
#include "kernels/experts/combine.h"
#include "kernels/experts/route.h"

namespace maskkv::transformer {

void FeedForward::Run(const LayerWeights& weights, kernels::RowSource normed, std::int64_t rows,
                      float* hidden, float* output, kernels::GemmWorkspace& workspace,
                      OpSeconds& seconds) {
  const Lent lent{workspace, seconds};
  const std::int64_t width = config_.hidden;
  if (!weights.experts.empty()) {
    normed_.Resize(rows * width);
    {
      const ScopedTimer timer(seconds.norm);
      ForRowRanges(pool_, rows, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
          float* const own = normed_.data() + row * width;
          const float* const from = normed(row, own);
          if (from != own) std::copy_n(from, width, own);
        }
      });
    }
    if (output != nullptr) std::fill_n(output, rows * width, 0.0F);
    Route(weights, normed_.data(), rows, lent);
    RunExperts(weights, hidden, output, lent);
  } else if (output == nullptr) {
    RunFfn(weights.ffn, normed, rows, hidden, kernels::Store::kAdd, lent);
  } else {
    RunFfn(weights.ffn, normed, rows, output, kernels::Store::kOverwrite, lent);
    AddRows(pool_, output, rows, width, hidden);
  }
}

void FeedForward::RunExperts(const LayerWeights& weights, float* hidden, float* output,
                             const Lent& lent) {
  const std::int64_t width = config_.hidden;
  for (std::size_t e = 0; e < weights.experts.size(); ++e) {
    const std::int64_t first = first_[e];
    const std::int64_t count = first_[e + 1] - first;
    if (count == 0) continue;
    const std::span<const std::int32_t> own = std::span(rows_of_).subspan(
        static_cast<std::size_t>(first), static_cast<std::size_t>(count));
    const auto gathered = [&](std::int64_t i, float*) -> const float* {
      return normed_.data() + own[static_cast<std::size_t>(i)] * width;
    };
    expert_output_.Resize(count * width);
    RunFfn(weights.experts[e], gathered, count, expert_output_.data(), kernels::Store::kOverwrite,
           lent);
    const ScopedTimer timer(lent.seconds.activation);
    ForRowRanges(pool_, count, [&](std::int64_t begin, std::int64_t end) {
      for (float* const target : {hidden, output}) {
        if (target == nullptr) continue;
        kernels::AddWeightedRows(
            expert_output_.data() + begin * width, width, width,
            own.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)),
            weights_of_.data() + first + begin, target, width);
      }
    });
  }
}

void FeedForward::RunFfn(const FfnWeights& weights, kernels::RowSource x, std::int64_t rows,
                         float* y, kernels::Store store, const Lent& lent) {
  const ScopedTimer timer(lent.seconds.gemm);
  const std::int64_t ffn = config_.ffn;
  gate_up_.Resize(rows * 2 * ffn);
  const kernels::Product up{
      &weights.gate_up, {0, 2 * ffn}, gate_up_.data(), 2 * ffn, kernels::Store::kOverwrite};
  kernels::MatMulRows(pool_, {&up, 1}, x, rows, lent.workspace);
  const auto activated = [&](std::int64_t row, float* out) -> const float* {
    const float* const gate = gate_up_.data() + row * 2 * ffn;
    kernels::SwiGlu(gate, gate + ffn, 1, 2 * ffn, ffn, out, ffn);
    return out;
  };
  const kernels::Product down{&weights.down, {0, config_.hidden}, y, config_.hidden, store};
  kernels::MatMulRows(pool_, {&down, 1}, activated, rows, lent.workspace);
}

void FeedForward::Route(const LayerWeights& weights, const float* normed, std::int64_t rows,
                        const Lent& lent) {
  const std::int64_t experts = config_.experts;
  const std::int64_t per_row = config_.experts_per_token;
  logits_.Resize(rows * experts);
  chosen_.resize(static_cast<std::size_t>(rows * per_row));
  weights_.resize(chosen_.size());
  {
    const ScopedTimer timer(lent.seconds.gemm);
    kernels::MatMul(pool_, weights.router, normed, rows, config_.hidden, logits_.data(), experts,
                    kernels::Store::kOverwrite, lent.workspace);
  }
  const ScopedTimer timer(lent.seconds.activation);
  const kernels::RouteShape shape{experts, per_row, config_.renormalised_gate};
  ForRowRanges(pool_, rows, [&](std::int64_t begin, std::int64_t end) {
    kernels::RouteRows(shape, logits_.data() + begin * experts, end - begin, experts,
                       chosen_.data() + begin * per_row, weights_.data() + begin * per_row);
  });
  GroupRows();
}

void FeedForward::GroupRows() {
  first_.assign(static_cast<std::size_t>(config_.experts) + 1, 0);
  for (const std::int32_t expert : chosen_) ++first_[static_cast<std::size_t>(expert) + 1];
  std::partial_sum(first_.begin(), first_.end(), first_.begin());
  rows_of_.resize(chosen_.size());
  weights_of_.resize(chosen_.size());
  std::vector<std::int64_t> next(first_.begin(), first_.end() - 1);
  for (std::size_t i = 0; i < chosen_.size(); ++i) {
    const auto at = static_cast<std::size_t>(next[static_cast<std::size_t>(chosen_[i])]++);
    rows_of_[at] =
        static_cast<std::int32_t>(static_cast<std::int64_t>(i) / config_.experts_per_token);
    weights_of_[at] = weights_[i];
  }
}

std::int64_t FeedForward::workspace_bytes() const {
  return gate_up_.capacity_bytes() + normed_.capacity_bytes() + logits_.capacity_bytes() +
         expert_output_.capacity_bytes() +
         static_cast<std::int64_t>(chosen_.capacity() + rows_of_.capacity()) *
             static_cast<std::int64_t>(sizeof(std::int32_t)) +
         static_cast<std::int64_t>(weights_.capacity() + weights_of_.capacity()) *
             static_cast<std::int64_t>(sizeof(float));
}

}  // namespace maskkv::transformer
