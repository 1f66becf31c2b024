// SPDX-License-Identifier: Apache-2.0
#include "core/engine/prefill.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/error.h"
#include "core/base/scoped_timer.h"
#include "core/base/status_macros.h"
#include "core/engine/keep.h"
#include "core/engine/pool_stage.h"
#include "core/engine/votes.h"
#include "core/model/rope_scaling.h"

namespace maskkv::engine {
namespace {

using kernels::AlignedBuffer;

}  // namespace

struct Prefiller::Pass {
  Pass(std::int64_t layers, std::int64_t all_rows, std::int64_t prompt_rows,
       std::vector<std::int64_t> voting_rows, double scale, const DocumentCopy* copy)
      : rope_scale(scale),
        document(copy),
        first(copy == nullptr ? 0 : copy->tokens()),
        rows(all_rows),
        prompt_tokens(prompt_rows),
        voting(std::move(voting_rows)),
        masks(std::ssize(voting)),
        votes(layers, prompt_tokens, masks, rows - prompt_tokens - masks) {}

  const double rope_scale;
  std::shared_ptr<const kernels::RopeTable> rope;
  const DocumentCopy* const document;  // of the rows before `first`, or null
  const std::int64_t first;            // the first row that is computed
  const std::int64_t rows;             // all of them
  const std::int64_t prompt_tokens;
  const std::vector<std::int64_t> voting;  // response rows that vote, ascending
  const std::int64_t masks;                // of those
  bool measures_importance = false;
  std::vector<double> importance;  // of the layers that have run; zeros if it is not measured
  PrefillPhases phases;            // forward and score
  std::int64_t tile_rows = transformer::kRowBlock;
  std::function<absl::Status()> between_tiles;  // or empty
  bool began = false;                           // the first tile
  Votes votes;
  std::vector<std::int32_t> positions;     // (rows)
  AlignedBuffer<float> hidden;             // (computed rows, hidden)
  AlignedBuffer<float> mask_queries;       // (masks, query_width) of the current layer
  AlignedBuffer<float> mask_log_sum_exp;   // (heads, masks) of the current layer
  AlignedBuffer<float> block_log_sum_exp;  // (heads, block)
  std::vector<double> cosines;             // (computed rows)

  absl::Status BetweenTiles() {
    return std::exchange(began, true) && between_tiles ? between_tiles() : absl::OkStatus();
  }

  // A cut each.
  std::vector<PrefillResult> results;
  std::vector<std::vector<std::int64_t>> budgets;  // a layer each
  std::vector<std::size_t> voters;                 // a set of votes
  std::vector<std::unique_ptr<PoolStage>> pools;   // or null
};

std::int64_t PrefillResult::pairs() const {
  std::int64_t total = 0;
  for (const LayerReport& layer : layers) {
    total = std::accumulate(layer.pairs.begin(), layer.pairs.end(), total);
  }
  return total;
}

double PrefillResult::kept_mass() const {
  double kept = 0, prompt = 0;
  for (const LayerReport& layer : layers) {
    kept = std::accumulate(layer.kept_mass.begin(), layer.kept_mass.end(), kept);
    prompt = std::accumulate(layer.prompt_mass.begin(), layer.prompt_mass.end(), prompt);
  }
  return prompt > 0 ? kept / prompt : 1;
}

absl::Status Prefiller::CheckForward(std::span<const Row> rows, double rope_scale,
                                     const DocumentCopy* document) const {
  const model::ModelConfig& config = transformer_.config();
  MASKKV_RETURN_IF_ERROR(model::CheckRopeScale(rope_scale, config.rope_theta));
  MASKKV_RETURN_IF_ERROR(ValidateRows(config, rows, transformer_.max_positions()));
  return document == nullptr ? absl::OkStatus()
                             : CheckDocument(*document, config, rows, rope_scale);
}

std::unique_ptr<Prefiller::Pass> Prefiller::MakePass(std::span<const Row> rows, double rope_scale,
                                                     const DocumentCopy* document) {
  std::vector<std::int64_t> voting;
  for (std::int64_t row = 0; row < std::ssize(rows); ++row) {
    if (rows[static_cast<std::size_t>(row)].role == Role::kResponse) voting.push_back(row);
  }
  auto pass = std::make_unique<Pass>(transformer_.config().layers, std::ssize(rows),
                                     std::ranges::count(rows, Role::kPrompt, &Row::role),
                                     std::move(voting), rope_scale, document);
  const std::int64_t last = std::ranges::max(rows, {}, &Row::position).position;
  pass->rope = transformer_.Rope(rope_scale, last + 1);
  return pass;
}

void Prefiller::Start(Pass& pass, std::span<const Row> rows) {
  const model::ModelConfig& config = transformer_.config();
  std::vector<std::int32_t> tokens;
  for (const Row& row : rows) {
    tokens.push_back(row.token);
    pass.positions.push_back(row.position);
  }
  tokens.erase(tokens.begin(), tokens.begin() + pass.first);
  pass.hidden.Resize((pass.rows - pass.first) * config.hidden);
  transformer_.Embed(tokens, pass.hidden.data());
  pass.mask_queries.Resize(pass.masks * transformer_.query_width());
  pass.mask_log_sum_exp.Resize(config.heads * pass.masks);
  pass.block_log_sum_exp.Resize(config.heads * transformer::kRowBlock);
  pass.cosines.resize(static_cast<std::size_t>(pass.rows - pass.first));
}

absl::StatusOr<PrefillResult> Prefiller::Run(const PrefillRequest& request, KvSink& sink) {
  const PrefillCut cut{request.plan, request.kv_dtype, &sink};
  MASKKV_ASSIGN_OR_RETURN(std::vector<PrefillResult> results, RunCuts(request, {&cut, 1}));
  return std::move(results.front());
}

absl::Status Prefiller::BeginCuts(Pass& pass, std::span<const PrefillCut> cuts) {
  const model::ModelConfig& config = transformer_.config();
  for (const PrefillCut& cut : cuts) {
    MASKKV_RETURN_IF_ERROR(Validate(cut.plan, config.layers, config.kv_heads));
    if (cut.sink->memory() != MemoryKind::kHost) {
      return absl::InvalidArgumentError("sink: expected host memory");
    }
    const VotingRows voters = VotersOf(cut.plan, pass.prompt_tokens, pass.masks);
    if (voters.begin < pass.first) {
      return MakeError(
          absl::StatusCode::kInvalidArgument, "BAD_KEEP",
          absl::StrFormat("voters: expected rows after the document's %d, which are not computed, "
                          "found row %d",
                          pass.first, voters.begin));
    }
  }
  for (const PrefillCut& cut : cuts) {
    const std::int64_t max_pairs =
        cut.plan.MaxPairsAHead(pass.prompt_tokens) * config.kv_heads * config.layers;
    const EntryShape shape{config.layers, config.kv_heads, config.head_dim, cut.kv_dtype,
                           pass.rope_scale};
    MASKKV_RETURN_IF_ERROR(cut.sink->Begin(shape, max_pairs));
    pass.voters.push_back(pass.votes.SetOf(VotersOf(cut.plan, pass.prompt_tokens, pass.masks)));
    pass.pools.push_back(cut.plan.StagesPairs() ? std::make_unique<PoolStage>(shape, max_pairs)
                                                : nullptr);
    PrefillResult& result = pass.results.emplace_back();
    result.prompt_tokens = pass.prompt_tokens;
    result.masks = pass.masks;
    std::vector<std::int64_t>& budgets = pass.budgets.emplace_back();
    if (cut.plan.HoldsAllLayers()) continue;
    MASKKV_ASSIGN_OR_RETURN(budgets, LayerBudgets(cut.plan, {}, config.layers, pass.prompt_tokens));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<PrefillResult>> Prefiller::RunCuts(const PrefillForward& forward,
                                                              std::span<const PrefillCut> cuts) {
  const std::int64_t layers = transformer_.config().layers;
  MASKKV_RETURN_IF_ERROR(CheckForward(forward.rows, forward.rope_scale, forward.document));
  const bool late =
      std::ranges::any_of(cuts, [](const PrefillCut& cut) { return cut.plan.HoldsAllLayers(); });
  const std::unique_ptr<Pass> held = MakePass(forward.rows, forward.rope_scale, forward.document);
  Pass& pass = *held;
  pass.measures_importance = late;
  MASKKV_CHECK(forward.tile_rows >= 1 && forward.tile_rows <= transformer::kRowBlock, "a tile");
  pass.tile_rows = forward.tile_rows;
  pass.between_tiles = forward.between_tiles;
  Start(pass, forward.rows);
  MASKKV_RETURN_IF_ERROR(BeginCuts(pass, cuts));
  std::vector<AlignedBuffer<float>> kv(static_cast<std::size_t>(late ? layers : 1));
  std::int64_t kv_bytes = 0;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    AlignedBuffer<float>& layer_kv = kv[static_cast<std::size_t>(late ? layer : 0)];
    layer_kv.Resize(pass.rows * 2 * transformer_.kv_width());
    if (late || layer == 0) kv_bytes += layer_kv.capacity_bytes();
    pass.votes.Begin(layer, transformer_);
    MASKKV_RETURN_IF_ERROR(RunLayer(pass, layer, layer_kv.data()));
    MASKKV_RETURN_IF_ERROR(pass.BetweenTiles());
    ScoreMasks(pass, layer, layer_kv.data());
    if (forward.on_scores) forward.on_scores(layer, pass.votes.Scores(layer, 0));
    MASKKV_RETURN_IF_ERROR(CutLayer(pass, cuts, /*late=*/false, layer, layer_kv.data()));
    if (!late) pass.votes.Clear(layer);
    if (forward.after_layer) MASKKV_RETURN_IF_ERROR(forward.after_layer(layer + 1, layers));
  }
  if (late) MASKKV_RETURN_IF_ERROR(CutLate(pass, forward, cuts, kv));
  MASKKV_RETURN_IF_ERROR(CutPools(pass, cuts));
  for (std::size_t i = 0; i < cuts.size(); ++i) {
    pass.results[i].peak_full_kv_bytes = kv_bytes;
    pass.results[i].phases.forward = pass.phases.forward;
    pass.results[i].phases.score = pass.phases.score;
    MASKKV_RETURN_IF_ERROR(cuts[i].sink->Finish());
  }
  return std::move(pass.results);
}

absl::Status Prefiller::CutPools(Pass& pass, std::span<const PrefillCut> cuts) {
  for (std::size_t i = 0; i < cuts.size(); ++i) {
    if (pass.pools[i] == nullptr) continue;
    PrefillResult& result = pass.results[i];
    for (std::int64_t layer = 0; layer < transformer_.config().layers; ++layer) {
      MASKKV_RETURN_IF_ERROR(pass.BetweenTiles());
      const ScopedTimer timer(result.phases.pack);
      result.layers.push_back(ReportOf(pass.pools[i]->Kept(layer)));
      MASKKV_RETURN_IF_ERROR(pass.pools[i]->WriteLayer(pass.positions, *cuts[i].sink));
    }
    pass.pools[i].reset();
  }
  return absl::OkStatus();
}

absl::Status Prefiller::CutLate(Pass& pass, const PrefillForward& forward,
                                std::span<const PrefillCut> cuts,
                                std::span<AlignedBuffer<float>> kv) {
  const std::int64_t layers = transformer_.config().layers;
  for (std::size_t i = 0; i < cuts.size(); ++i) {
    if (!cuts[i].plan.HoldsAllLayers()) continue;
    MASKKV_ASSIGN_OR_RETURN(
        pass.budgets[i], LayerBudgets(cuts[i].plan, pass.importance, layers, pass.prompt_tokens));
  }
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    AlignedBuffer<float>& layer_kv = kv[static_cast<std::size_t>(layer)];
    MASKKV_RETURN_IF_ERROR(pass.BetweenTiles());
    MASKKV_RETURN_IF_ERROR(CutLayer(pass, cuts, /*late=*/true, layer, layer_kv.data()));
    layer_kv.Clear();
    pass.votes.Clear(layer);
    if (forward.after_layer) MASKKV_RETURN_IF_ERROR(forward.after_layer(layers, layers));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<double>> Prefiller::MeasureImportance(std::span<const Row> rows,
                                                                 double rope_scale) {
  MASKKV_RETURN_IF_ERROR(CheckForward(rows, rope_scale, nullptr));
  const std::unique_ptr<Pass> held = MakePass(rows, rope_scale, nullptr);
  Pass& pass = *held;
  pass.measures_importance = true;
  Start(pass, rows);
  AlignedBuffer<float> kv(pass.rows * 2 * transformer_.kv_width());
  for (std::int64_t layer = 0; layer < transformer_.config().layers; ++layer) {
    MASKKV_RETURN_IF_ERROR(RunLayer(pass, layer, kv.data()));
  }
  return std::move(pass.importance);
}

void Prefiller::ProjectBlock(Pass& pass, std::int64_t layer, std::int64_t begin, std::int64_t end,
                             float* kv) {
  const ScopedTimer timer(pass.phases.forward);
  const transformer::RopeRun run{end - begin, pass.rope.get()};
  transformer_.ProjectKeysValues(
      layer, pass.hidden.data() + (begin - pass.first) * transformer_.hidden(), run.rows,
      pass.positions.data() + begin, {&run, 1}, kv + begin * 2 * transformer_.kv_width());
}

std::int64_t Prefiller::BlockEnd(const Pass& pass, std::int64_t begin) const {
  const bool prompt = begin < pass.prompt_tokens;
  const std::int64_t role_begin = prompt ? pass.first : pass.prompt_tokens;
  const std::int64_t role_end = prompt ? pass.prompt_tokens : pass.rows;
  const std::int64_t block = begin - (begin - role_begin) % transformer::kRowBlock;
  const std::int64_t end = std::min(block + transformer::kRowBlock, role_end);
  // A prompt's votes are added up block by block.
  if (prompt && pass.votes.AnyVotes(block, end)) return end;
  return std::min(begin + pass.tile_rows, end);
}

absl::Status Prefiller::RunLayer(Pass& pass, std::int64_t layer, float* kv) {
  if (pass.document != nullptr) {
    MASKKV_RETURN_IF_ERROR(pass.BetweenTiles());
    const ScopedTimer timer(pass.phases.forward);
    pass.document->ReadLayer(transformer_.pool(), layer, kv);
  }
  for (std::int64_t begin = pass.first; begin < pass.rows; begin += transformer::kRowBlock) {
    MASKKV_RETURN_IF_ERROR(pass.BetweenTiles());
    ProjectBlock(pass, layer, begin, std::min(begin + transformer::kRowBlock, pass.rows), kv);
  }
  // Of the last layer nobody reads the prompt's outputs, only its votes.
  const bool voters_only = layer + 1 == transformer_.config().layers && !pass.measures_importance;
  std::int64_t begin = pass.first;
  while (begin < pass.rows) {
    const std::int64_t end = BlockEnd(pass, begin);
    if (!voters_only || begin >= pass.prompt_tokens || pass.votes.AnyVotes(begin, end)) {
      MASKKV_RETURN_IF_ERROR(pass.BetweenTiles());
      AdvanceBlock(pass, layer, begin, end, kv);
    }
    begin = end;
  }
  double importance = 0;
  if (pass.measures_importance) {
    const double mean = std::accumulate(pass.cosines.begin(), pass.cosines.end(), 0.0) /
                        static_cast<double>(pass.cosines.size());
    importance = std::max(0.0, 1 - mean);  // rounding may pass 1 by an ulp
  }
  pass.importance.push_back(importance);
  return absl::OkStatus();
}

void Prefiller::AdvanceBlock(Pass& pass, std::int64_t layer, std::int64_t begin, std::int64_t end,
                             const float* kv) {
  const model::ModelConfig& config = transformer_.config();
  const std::int64_t kv_width = transformer_.kv_width();
  const std::int64_t count = end - begin;
  const bool votes = begin >= pass.prompt_tokens || pass.votes.AnyVotes(begin, end);
  {
    const ScopedTimer timer(pass.phases.forward);
    const transformer::AttentionSource source{
        .rows = count,
        .rope = pass.rope.get(),
        .keys = kv,
        .values = kv + kv_width,
        .ldkv = 2 * kv_width,
        .own_rows = pass.rows,
        .cached = {},
        .cached_dtype = kernels::DType::kF32,
        .log_sum_exp = votes ? pass.block_log_sum_exp.data() : nullptr};
    const std::int64_t computed = begin - pass.first;
    transformer_.Advance(layer, pass.hidden.data() + computed * config.hidden, count,
                         pass.positions.data() + begin, {&source, 1},
                         pass.measures_importance ? pass.cosines.data() + computed : nullptr);
  }
  if (begin >= pass.prompt_tokens) {  // all masks vote at once, when the last of them has run
    const std::int64_t width = transformer_.query_width();
    auto voter = std::ranges::lower_bound(pass.voting, begin);
    for (; voter != pass.voting.end() && *voter < end; ++voter) {
      const std::int64_t slot = voter - pass.voting.begin(), row = *voter - begin;
      std::copy_n(transformer_.queries() + row * width, width,
                  pass.mask_queries.data() + slot * width);
      for (std::int64_t head = 0; head < config.heads; ++head) {
        pass.mask_log_sum_exp.data()[head * pass.masks + slot] =
            pass.block_log_sum_exp.data()[head * count + row];
      }
    }
  } else if (votes) {
    const ScopedTimer timer(pass.phases.score);
    pass.votes.Add(transformer_, layer,
                   {{begin, end}, transformer_.queries(), pass.block_log_sum_exp.data(), kv});
  }
}

void Prefiller::ScoreMasks(Pass& pass, std::int64_t layer, const float* kv) {
  const ScopedTimer timer(pass.phases.score);
  pass.votes.Add(transformer_, layer,
                 {{pass.prompt_tokens, pass.prompt_tokens + pass.masks},
                  pass.mask_queries.data(),
                  pass.mask_log_sum_exp.data(),
                  kv});
}

absl::Status Prefiller::CutLayer(Pass& pass, std::span<const PrefillCut> cuts, bool late,
                                 std::int64_t layer, const float* kv) {
  for (std::size_t i = 0; i < cuts.size(); ++i) {
    if (cuts[i].plan.HoldsAllLayers() != late) continue;
    if (pass.pools[i] == nullptr) {
      MASKKV_RETURN_IF_ERROR(EvictLayer(pass, i, cuts[i], layer, kv));
      continue;
    }
    const ScopedTimer timer(pass.results[i].phases.select);
    const LayerScores scores{pass.votes.Scores(layer, pass.voters[i]), pass.votes.Scores(layer, 0)};
    MASKKV_RETURN_IF_ERROR(
        pass.pools[i]->AddLayer(transformer_.pool(), scores, pass.prompt_tokens, kv));
  }
  return absl::OkStatus();
}

absl::Status Prefiller::EvictLayer(Pass& pass, std::size_t cut_index, const PrefillCut& cut,
                                   std::int64_t layer, const float* kv) {
  const kernels::AttentionShape& shape = transformer_.shape();
  PrefillResult& result = pass.results[cut_index];
  KeptLayer kept;
  {
    const ScopedTimer timer(result.phases.select);
    const LayerScores scores{pass.votes.Scores(layer, pass.voters[cut_index]),
                             pass.votes.Scores(layer, 0)};
    MASKKV_ASSIGN_OR_RETURN(
        kept, KeepPairs(cut.plan, layer, pass.budgets[cut_index][static_cast<std::size_t>(layer)],
                        shape.kv_heads, scores, pass.prompt_tokens));
  }
  const ScopedTimer timer(result.phases.pack);
  LayerReport& report = result.layers.emplace_back(ReportOf(kept));
  // Of this prompt, measured: a cut that another one's measurement happens to serve reports none.
  if (cut.plan.HoldsAllLayers()) {
    report.importance = pass.importance[static_cast<std::size_t>(layer)];
  }
  const EntryShape entry{transformer_.config().layers, shape.kv_heads, shape.head_dim, cut.kv_dtype,
                         pass.rope_scale};
  return WriteKept(transformer_.pool(), entry, layer, kept, kv, pass.positions, *cut.sink);
}

}  // namespace maskkv::engine
