// SPDX-License-Identifier: Apache-2.0
#include "services/prefill/explain.h"

#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "core/engine/prompt.h"
#include "maskkv/v1/prefill.pb.h"

namespace maskkv::prefill {
namespace {

// Of one head: numbers and lengths.
constexpr std::uint64_t kHeadBytes = 64;
// A position as a varint: 21 bits and more never happen together with so many pairs.
constexpr std::uint64_t kPositionBytes = 5;

// The prompt's scores by position. The forward's rows are what an entry may serve, before and after
// the answer, then what decoding computes again: of the prompt, tokens before the answer.
void FillScores(const model::ModelConfig& config, const Job& job, std::span<const float> rows,
                v1::HeadExplanation& head) {
  const auto tokens = static_cast<std::int64_t>(job.prompt.ids.size());
  const auto served = static_cast<std::size_t>(engine::ServableTokens(config, tokens));
  const std::size_t suffix = job.prompt.suffix.size();
  for (const auto& part :
       {rows.first(served), rows.subspan(served + suffix, job.prompt.ids.size() - served),
        rows.subspan(served, suffix)}) {
    head.mutable_scores()->Add(part.begin(), part.end());
  }
}

}  // namespace

std::uint64_t ExplanationBytes(const model::ModelConfig& config, const Job& job, bool with_scores) {
  const auto heads = static_cast<std::uint64_t>(config.layers * config.kv_heads);
  const auto tokens = static_cast<std::uint64_t>(job.prompt.tokens());
  const auto pairs = static_cast<std::uint64_t>(job.keep.plan.MaxPairsAHead(job.prompt.tokens()));
  return heads * (kHeadBytes + kPositionBytes * pairs + (with_scores ? sizeof(float) * tokens : 0));
}

std::uint64_t ExplainingBytes(const model::ModelConfig& config, const Job& job, bool with_scores) {
  // Pairs are at most f32.
  const engine::EntryShape shape{config.layers, config.kv_heads, config.head_dim};
  const std::int64_t pairs =
      job.keep.plan.MaxPairsAHead(job.prompt.tokens()) * config.layers * config.kv_heads;
  return ExplanationBytes(config, job, with_scores) +
         static_cast<std::uint64_t>(pairs * shape.PairBytes());
}

absl::Status CheckExplanation(const model::ModelConfig& config, const Job& job, bool with_scores,
                              std::uint64_t max_bytes) {
  const std::uint64_t bytes = ExplanationBytes(config, job, with_scores);
  if (bytes <= max_bytes) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kResourceExhausted, "RESPONSE_TOO_LARGE",
      absl::StrFormat("explanation: expected at most %d bytes, a message's limit, found %d: ask "
                      "without scores, with a smaller budget or for a shorter prompt",
                      max_bytes, bytes),
      {{"limit_bytes", absl::StrFormat("%d", max_bytes)}});
}

absl::Status Explain(Compressor& compressor, const model::ModelConfig& config, const Job& job,
                     bool with_scores, const std::function<absl::Status()>& alive,
                     v1::ExplainResponse& response) {
  const auto rows = static_cast<std::size_t>(job.prompt.tokens() + job.masks);
  for (std::int64_t i = 0; i < config.layers * config.kv_heads; ++i) response.add_heads();
  const auto head_at = [&](std::int64_t layer, std::int64_t head) {
    return response.mutable_heads(static_cast<int>(layer * config.kv_heads + head));
  };
  Compressor::ScoreObserver on_scores;
  if (with_scores) {
    on_scores = [&](std::int64_t layer, std::span<const float> scores) {
      for (std::int64_t head = 0; head < config.kv_heads; ++head) {
        FillScores(config, job, scores.subspan(static_cast<std::size_t>(head) * rows, rows),
                   *head_at(layer, head));
      }
    };
  }
  engine::HeapKvEntry entry;
  MASKKV_ASSIGN_OR_RETURN(const engine::PrefillResult result,
                          compressor.RunInto(entry, job, alive, on_scores));
  std::vector<std::int64_t> per_head;
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const engine::LayerReport& report = result.layers[static_cast<std::size_t>(layer)];
    for (std::int64_t head = 0; head < config.kv_heads; ++head) {
      const auto h = static_cast<std::size_t>(head);
      v1::HeadExplanation& out = *head_at(layer, head);
      out.set_layer(static_cast<std::int32_t>(layer));
      out.set_head(static_cast<std::int32_t>(head));
      out.set_preference(report.preference[h]);
      out.set_kept_mass(report.kept_mass[h]);
      out.set_prompt_mass(report.prompt_mass[h]);
      const std::span<const std::int32_t> positions = entry.Positions(layer, head);
      out.mutable_positions()->Assign(positions.begin(), positions.end());
      per_head.push_back(report.pairs[h]);
    }
  }
  response.set_prompt_tokens(job.prompt.tokens());
  response.set_masks(job.masks);
  response.set_rope_scale(job.rope_scale);
  FillKept(per_head, config.kv_heads, result.prompt_tokens, result.kept_mass(),
           *response.mutable_kept());
  response.mutable_provenance()->set_plan_generation(job.keep.plan_generation);
  return absl::OkStatus();
}

}  // namespace maskkv::prefill
