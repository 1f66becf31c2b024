// SPDX-License-Identifier: Apache-2.0
//
// Peak memory of a prefill above the loaded model, for the cache layouts that MaskKV's paper
// compares (arXiv 2510.09309), each measured in this process on the same random prompt. Prints
// JSON; scripts/bench-memory sets the formula beside it.
//
//   features        K, V and two features (attention and FFN output) of every token and layer, and
//   the
//                   logits of every row: what dLLM-Cache holds
//   mask-only       the same with logits of the masked rows only
//   no-features     K and V of every token and layer: no features of the prompt
//   online          MaskKV with layer budgets from the prompt's own importance
//   offline         MaskKV with layer budgets from a profile
//
// The engine adds a layer's two sub-layers in place; the features stored here are the layer's input
// and output, which take the same bytes and are as real as the others.
#include <malloc.h>

#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "core/base/status_macros.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/model/checkpoint.h"
#include "core/transformer/transformer.h"
#include "core/transformer/weights.h"
#include "kernels/gemm/matmul.h"
#include "services/common/memory.h"

namespace maskkv {
namespace {

using kernels::AlignedBuffer;
using nlohmann::json;

struct Arguments {
  std::string model;
  std::int64_t prompt_tokens = 4096;
  std::int64_t masks = 32;
  std::int64_t budget = 128;
  int threads = 2;
};

class Bench {
 public:
  Bench(const Arguments& arguments, const transformer::Weights& weights, kernels::WorkerPool& pool)
      : arguments_(arguments), weights_(weights), pool_(pool) {
    std::mt19937_64 random(1);
    const model::ModelConfig& config = weights.config();
    std::vector<std::int32_t> prompt;
    while (static_cast<std::int64_t>(prompt.size()) < arguments.prompt_tokens) {
      const auto id =
          static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(config.vocab_rows));
      if (id != config.mask_id) prompt.push_back(id);
    }
    rows_ = engine::PromptThenMasks(prompt, arguments.masks, config);
  }

  // Peak bytes of a layout above what is resident before it.
  template <typename Body>
  absl::StatusOr<std::int64_t> Peak(const Body& body) {
    malloc_trim(0);
    if (!services::ResetPeakMemory()) {
      return absl::UnimplementedError("expected a kernel that lets clear_refs reset the peak");
    }
    const std::int64_t before = services::ResidentMemoryBytes();
    MASKKV_RETURN_IF_ERROR(body());
    return services::PeakMemoryBytes() - before;
  }

  absl::Status Run(json& out) {
    MASKKV_ASSIGN_OR_RETURN(out["features"], Peak([&] { return KeepAll(true, true); }));
    MASKKV_ASSIGN_OR_RETURN(out["mask-only"], Peak([&] { return KeepAll(true, false); }));
    MASKKV_ASSIGN_OR_RETURN(out["no-features"], Peak([&] { return KeepAll(false, false); }));
    MASKKV_ASSIGN_OR_RETURN(out["online"], Peak([&] { return Evict(engine::LayerRule::kOnline); }));
    MASKKV_ASSIGN_OR_RETURN(out["offline"],
                            Peak([&] { return Evict(engine::LayerRule::kOffline); }));
    return absl::OkStatus();
  }

 private:
  std::int64_t positions() const { return static_cast<std::int64_t>(rows_.size()); }

  absl::Status KeepAll(bool features, bool all_logits) {
    transformer::Transformer transformer(weights_, pool_, positions());
    const std::int64_t rows = positions(), width = transformer.hidden();
    const std::int64_t kv_width = transformer.kv_width();
    std::vector<std::int32_t> tokens, at;
    for (const engine::Row& row : rows_) {
      tokens.push_back(row.token);
      at.push_back(row.position);
    }
    AlignedBuffer<float> hidden(rows * width);
    transformer.Embed(tokens, hidden.data());
    const auto rope = transformer.Rope(1, rows);
    const transformer::RopeRun run{rows, rope.get()};
    std::vector<AlignedBuffer<float>> kv, inputs, outputs;
    for (std::int64_t layer = 0; layer < transformer.config().layers; ++layer) {
      AlignedBuffer<float>& pairs = kv.emplace_back(rows * 2 * kv_width);
      transformer.ProjectKeysValues(layer, hidden.data(), rows, at.data(), {&run, 1}, pairs.data());
      if (features) {
        std::copy_n(hidden.data(), rows * width, inputs.emplace_back(rows * width).data());
      }
      for (std::int64_t begin = 0; begin < rows; begin += transformer::kRowBlock) {
        const std::int64_t count = std::min(transformer::kRowBlock, rows - begin);
        const transformer::AttentionSource source{.rows = count,
                                                  .rope = rope.get(),
                                                  .keys = pairs.data(),
                                                  .values = pairs.data() + kv_width,
                                                  .ldkv = 2 * kv_width,
                                                  .own_rows = rows,
                                                  .cached = {},
                                                  .cached_dtype = kernels::DType::kF32,
                                                  .log_sum_exp = nullptr};
        transformer.Advance(layer, hidden.data() + begin * width, count, at.data() + begin,
                            {&source, 1});
      }
      if (features) {
        std::copy_n(hidden.data(), rows * width, outputs.emplace_back(rows * width).data());
      }
    }
    const std::int64_t projected = all_logits ? rows : arguments_.masks;
    const float* from = hidden.data() + (rows - projected) * width;
    const std::int64_t vocabulary = transformer.config().vocab_rows;
    AlignedBuffer<float> logits(projected * vocabulary);
    AlignedBuffer<float> normed(transformer::kRowBlock * width);
    kernels::GemmWorkspace workspace;
    for (std::int64_t begin = 0; begin < projected; begin += transformer::kRowBlock) {
      const std::int64_t count = std::min(transformer::kRowBlock, projected - begin);
      transformer.FinalNorm(from + begin * width, count, normed.data());
      kernels::MatMul(pool_, weights_.head(), normed.data(), count, width,
                      logits.data() + begin * vocabulary, vocabulary, kernels::Store::kOverwrite,
                      workspace);
    }
    return absl::OkStatus();
  }

  absl::Status Evict(engine::LayerRule rule) {
    transformer::Transformer transformer(weights_, pool_, positions());
    engine::PrefillRequest request;
    request.rows = rows_;
    request.plan.layer_rule = rule;
    request.plan.budget = arguments_.budget;
    request.plan.importance.assign(static_cast<std::size_t>(weights_.config().layers), 1.0);
    engine::HeapKvEntry entry;
    return engine::Prefiller(transformer).Run(request, entry).status();
  }

  const Arguments& arguments_;
  const transformer::Weights& weights_;
  kernels::WorkerPool& pool_;
  std::vector<engine::Row> rows_;
};

absl::Status Main(const Arguments& arguments) {
  // Large buffers go back to the system when freed, so that one layout does not pay for another.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  kernels::WorkerPool pool(arguments.threads);
  MASKKV_ASSIGN_OR_RETURN(model::Checkpoint checkpoint, model::Checkpoint::Open(arguments.model));
  MASKKV_ASSIGN_OR_RETURN(
      const transformer::Weights weights,
      transformer::Weights::Load(std::move(checkpoint), kernels::DType::kF32, pool));
  const model::ModelConfig& config = weights.config();
  json peaks;
  Bench bench(arguments, weights, pool);
  {
    // Once without being measured: the embedding's pages and the threads' stacks become resident.
    json warm;
    MASKKV_RETURN_IF_ERROR(bench.Run(warm));
  }
  MASKKV_RETURN_IF_ERROR(bench.Run(peaks));
  const json report = {{"prompt_tokens", arguments.prompt_tokens},
                       {"masks", arguments.masks},
                       {"budget", arguments.budget},
                       {"layers", config.layers},
                       {"hidden", config.hidden},
                       {"heads", config.heads},
                       {"kv_heads", config.kv_heads},
                       {"head_dim", config.head_dim},
                       {"ffn", config.ffn},
                       {"vocabulary", config.vocab_rows},
                       {"peak_bytes", peaks}};
  std::printf("%s\n", report.dump(1).c_str());
  return absl::OkStatus();
}

}  // namespace
}  // namespace maskkv

int main(int argc, char** argv) {
  maskkv::Arguments arguments;
  if (argc != 5) {
    std::fprintf(stderr, "usage: bench_memory MODEL_DIR PROMPT_TOKENS BUDGET THREADS\n");
    return 2;
  }
  arguments.model = argv[1];
  arguments.prompt_tokens = std::atoll(argv[2]);
  arguments.budget = std::atoll(argv[3]);
  arguments.threads = std::atoi(argv[4]);
  const absl::Status status = maskkv::Main(arguments);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
