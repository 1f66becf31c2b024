// SPDX-License-Identifier: Apache-2.0
//
// LLaDA-8B's exact shapes at long prompts, on a checkpoint whose file is nothing but holes apart
// from what the expected values need. Prints JSON; exit code 1 if a value is wrong.
//
//   layer     the 16 GB checkpoint is mapped; its last layer and the head, packed alone, run at
//             POSITIONS positions: keys and values of all of them, then BLOCKS blocks of 256 rows
//             spread over them (0: all), then the head
//   prefill   a whole prefill of two such layers, B = 256: peak memory above the weights
//
// How the values are known. Embeddings are 64 times a unit vector: e_0 at every position but a few
// marked ones, which have a vector of their own each. The norm makes 64 of the only entry. Query
// projections are zero, so every row attends to all alike; value and output projections are
// identities and the FFN is zero. So the layer adds to every row the mean of all normed rows: in a
// marked position's entry 64 / positions, whichever row it is added to.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/engine/prompt.h"
#include "core/model/checkpoint.h"
#include "core/transformer/transformer.h"
#include "core/transformer/weights.h"
#include "kernels/head/token_reducer.h"
#include "services/common/memory.h"
#include "tests/unit/core/model/published_configs.h"
#include "tests/unit/core/model/sparse_checkpoint.h"

namespace maskkv {
namespace {

using kernels::AlignedBuffer;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr float kEntry = 64;

struct Arguments {
  std::string what;
  kernels::DType dtype = kernels::DType::kBF16;
  std::int64_t positions = 32'768;
  std::int64_t blocks = 0;
  int threads = 2;
};

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

template <typename T>
T Take(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "bench_shape: %s\n", value.status().ToString().c_str());
  std::exit(1);
}

// A position whose row is known everywhere: its token, and where in the row its entry is.
struct Mark {
  std::int64_t position;
  std::int32_t token;
  std::int64_t entry;
  std::int32_t predicted;  // whose row of the head looks at that entry
};

std::vector<Mark> MarksOf(std::int64_t positions) {
  return {{0, 17, 1, 3},
          {positions / 2 + 1, 64'000, 2'047, 99'999},
          {positions - 1, 126'463, 4'095, 126'463}};
}

class Failures {
 public:
  void Near(const std::string& what, double found, double expected, double tolerance) {
    worst_ = std::max(worst_, std::abs(found - expected) / tolerance);
    if (std::abs(found - expected) <= tolerance) return;
    ++count_;
    std::fprintf(stderr, "%s: expected %.9g, found %.9g\n", what.c_str(), expected, found);
  }
  int count() const { return count_; }
  double worst() const { return worst_; }

 private:
  int count_ = 0;
  double worst_ = 0;
};

void SetValues(model::SparseCheckpoint& file, const std::vector<Mark>& marks, std::int64_t width) {
  const model::ModelTensors& tensors = file.tensors();
  const model::BlockTensors& last = tensors.blocks.back();
  for (const auto& norm : {last.attn_norm, last.ffn_norm, tensors.final_norm}) file.Fill(norm, 1);
  for (const auto& matrix : {last.key, last.value, last.attn_out}) file.SetIdentity(matrix);
  file.Set(tensors.embedding, 5 * width, kEntry);
  for (const Mark& mark : marks) {
    file.Set(tensors.embedding, mark.token * width + mark.entry, kEntry);
    file.Set(tensors.head, mark.predicted * width + mark.entry, 1);
  }
}

class LayerRun {
 public:
  LayerRun(const Arguments& arguments, const transformer::Weights& weights,
           kernels::WorkerPool& pool)
      : arguments_(arguments),
        weights_(weights),
        transformer_(weights, pool, arguments.positions),
        marks_(MarksOf(arguments.positions)),
        rows_(arguments.positions),
        width_(transformer_.hidden()),
        layer_(transformer_.config().layers - 1),
        hidden_(rows_ * width_),
        kv_(rows_ * 2 * transformer_.kv_width()) {
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(rows_), 5);
    for (const Mark& mark : marks_) tokens[static_cast<std::size_t>(mark.position)] = mark.token;
    for (std::int32_t at = 0; at < rows_; ++at) positions_.push_back(at);
    transformer_.Embed(tokens, hidden_.data());
    rope_ = transformer_.Rope(1, rows_);
  }

  json Run(Failures& failures) {
    json out;
    Clock::time_point start = Clock::now();
    const transformer::RopeRun run{rows_, rope_.get()};
    transformer_.ProjectKeysValues(layer_, hidden_.data(), rows_, positions_.data(), {&run, 1},
                                   kv_.data());
    out["keys and values s"] = Since(start);
    CheckPairs(failures);
    start = Clock::now();
    const std::int64_t all = (rows_ + transformer::kRowBlock - 1) / transformer::kRowBlock;
    const std::int64_t wanted = arguments_.blocks == 0 ? all : std::min(all, arguments_.blocks);
    std::int64_t advanced = 0;
    for (std::int64_t i = 0; i < wanted; ++i) {
      const std::int64_t block = wanted == 1 ? all - 1 : i * (all - 1) / (wanted - 1);
      advanced += AdvanceBlock(block * transformer::kRowBlock, failures);
    }
    out["rows advanced"] = advanced;
    out["rows advanced s"] = Since(start);
    start = Clock::now();
    CheckHead(failures);
    out["head s"] = Since(start);
    return out;
  }

 private:
  // K is the normed row rotated, V the normed row.
  void CheckPairs(Failures& failures) const {
    const model::ModelConfig& config = transformer_.config();
    const std::int64_t half = config.head_dim / 2, kv_width = transformer_.kv_width();
    for (const Mark& mark : marks_) {
      const float* const key = kv_.data() + mark.position * 2 * kv_width;
      const std::int64_t pair = mark.entry % half;
      const bool upper = mark.entry % config.head_dim >= half;
      const double angle = static_cast<double>(mark.position) *
                           std::pow(config.rope_theta, -2.0 * static_cast<double>(pair) /
                                                           static_cast<double>(config.head_dim));
      const double own = kEntry * std::cos(angle);
      const double other = kEntry * std::sin(angle) * (upper ? -1 : 1);
      const std::int64_t partner = mark.entry + (upper ? -half : half);
      failures.Near("key", key[mark.entry], own, kEntry * 0x1p-7);
      failures.Near("key's partner", key[partner], other, kEntry * 0x1p-7);
      failures.Near("value", key[kv_width + mark.entry], kEntry, kEntry * 0x1p-8);
    }
  }

  std::int64_t AdvanceBlock(std::int64_t begin, Failures& failures) {
    const std::int64_t count = std::min(transformer::kRowBlock, rows_ - begin);
    float* const rows = hidden_.data() + begin * width_;
    const std::vector<float> before(rows, rows + count * width_);
    const transformer::AttentionSource source{.rows = count,
                                              .rope = rope_.get(),
                                              .keys = kv_.data(),
                                              .values = kv_.data() + transformer_.kv_width(),
                                              .ldkv = 2 * transformer_.kv_width(),
                                              .own_rows = rows_,
                                              .cached = {},
                                              .cached_dtype = kernels::DType::kF32,
                                              .log_sum_exp = nullptr};
    transformer_.Advance(layer_, rows, count, positions_.data() + begin, {&source, 1});
    const double share = kEntry / static_cast<double>(rows_);
    for (std::int64_t i = 0; i < count * width_; ++i) {
      const std::int64_t entry = i % width_;
      double expected = entry == 0 ? share * static_cast<double>(rows_ - std::ssize(marks_)) : 0;
      for (const Mark& mark : marks_) expected += entry == mark.entry ? share : 0;
      // bf16 rounds V and what is projected; subtracting the row costs its own rounding.
      failures.Near("what a row gains", rows[i] - before[static_cast<std::size_t>(i)], expected,
                    expected * 0x1p-6 + kEntry * 0x1p-22);
    }
    return count;
  }

  // Marked rows predict the token whose row of the head looks at their entry.
  void CheckHead(Failures& failures) {
    const kernels::ArgmaxReducer reducer({});
    std::vector<kernels::TokenChoice> choices(marks_.size());
    AlignedBuffer<float> normed(std::ssize(marks_) * width_);
    std::vector<kernels::HeadRow> rows;
    for (std::size_t i = 0; i < marks_.size(); ++i) {
      float* const to = normed.data() + static_cast<std::int64_t>(i) * width_;
      transformer_.FinalNorm(hidden_.data() + marks_[i].position * width_, 1, to);
      rows.push_back({to, &reducer, marks_[i].position, &choices[i]});
    }
    transformer_.Project(rows);
    for (std::size_t i = 0; i < marks_.size(); ++i) {
      failures.Near("predicted token", choices[i].token, marks_[i].predicted, 0.5);
    }
  }

  const Arguments& arguments_;
  const transformer::Weights& weights_;
  transformer::Transformer transformer_;
  const std::vector<Mark> marks_;
  const std::int64_t rows_, width_, layer_;
  AlignedBuffer<float> hidden_, kv_;
  std::vector<std::int32_t> positions_;
  std::shared_ptr<const kernels::RopeTable> rope_;
};

json RunLayer(const Arguments& arguments, Failures& failures) {
  const model::TemporaryFolder folder;
  model::SparseCheckpoint file(folder.path(), model::Llada8B());
  const std::vector<Mark> marks = MarksOf(arguments.positions);
  SetValues(file, marks, model::Llada8B()["d_model"].get<std::int64_t>());
  json out = {{"file_bytes", file.file_bytes()}, {"file_bytes_on_disk", file.disk_bytes()}};
  kernels::WorkerPool pool(arguments.threads);
  Clock::time_point start = Clock::now();
  model::Checkpoint checkpoint = Take(model::Checkpoint::Open(folder.path()));
  out["open s"] = Since(start);
  start = Clock::now();
  const std::int64_t last = checkpoint.config().layers - 1;
  const transformer::Weights weights = Take(transformer::Weights::Load(
      std::move(checkpoint), {.compute = arguments.dtype, .only_layer = last}, pool));
  out["pack s"] = Since(start);
  out["packed_bytes"] = weights.packed_bytes();
  services::ResetPeakMemory();
  const std::int64_t before = services::ResidentMemoryBytes();
  LayerRun run(arguments, weights, pool);
  out.update(run.Run(failures));
  out["peak_bytes_above_weights"] = services::PeakMemoryBytes() - before;
  out["wrong"] = failures.count();
  out["worst error / tolerance"] = failures.worst();
  return out;
}

json RunPrefill(const Arguments& arguments) {
  const model::TemporaryFolder folder;
  json config = model::Llada8B();
  constexpr std::int64_t kLayers = 2, kMasks = 32;
  const std::int64_t layers = config["n_layers"];
  config["n_layers"] = kLayers;
  const model::SparseCheckpoint file(folder.path(), config);
  kernels::WorkerPool pool(arguments.threads);
  const transformer::Weights weights = Take(transformer::Weights::Load(
      Take(model::Checkpoint::Open(folder.path())), arguments.dtype, pool));
  const std::vector<std::int32_t> prompt(static_cast<std::size_t>(arguments.positions), 5);
  services::ResetPeakMemory();
  const std::int64_t before = services::ResidentMemoryBytes();
  const Clock::time_point start = Clock::now();
  transformer::Transformer transformer(weights, pool, arguments.positions + kMasks);
  engine::PrefillRequest request;
  const auto rows = engine::PromptThenMasks(prompt, kMasks, weights.config());
  request.rows = rows;
  request.plan.layer_rule = engine::LayerRule::kUniform;
  request.plan.budget = 256;
  request.kv_dtype = arguments.dtype;
  engine::HeapKvEntry entry;
  const engine::PrefillResult result = Take(engine::Prefiller(transformer).Run(request, entry));
  const std::int64_t peak = services::PeakMemoryBytes() - before;
  const std::int64_t others = entry.bytes() / kLayers * (layers - kLayers);
  return {{"prompt_tokens", arguments.positions},
          {"layers", kLayers},
          {"pairs", result.pairs()},
          {"seconds", Since(start)},
          {"peak_bytes_above_weights", peak},
          {"entry_bytes", entry.bytes()},
          {"entry_bytes_of_the_other_layers", others},
          {"workspace_bytes", transformer.workspace_bytes()},
          {"peak_bytes_of_all_layers", peak + others}};
}

}  // namespace
}  // namespace maskkv

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: bench_shape layer|prefill f32|bf16 POSITIONS BLOCKS THREADS\n");
    return 2;
  }
  const maskkv::Arguments arguments{.what = argv[1],
                                    .dtype = std::string(argv[2]) == "bf16"
                                                 ? maskkv::kernels::DType::kBF16
                                                 : maskkv::kernels::DType::kF32,
                                    .positions = std::atoll(argv[3]),
                                    .blocks = std::atoll(argv[4]),
                                    .threads = std::atoi(argv[5])};
  maskkv::Failures failures;
  const nlohmann::json figures = arguments.what == "prefill"
                                     ? maskkv::RunPrefill(arguments)
                                     : maskkv::RunLayer(arguments, failures);
  std::printf("%s\n", figures.dump(1).c_str());
  return failures.count() == 0 ? 0 : 1;
}
