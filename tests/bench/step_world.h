// SPDX-License-Identifier: Apache-2.0
//
// What the benches of the engine measure on: a loaded model, random prompts, entries and requests
// that step for ever. Errors end the process with one line: a bench has nobody to report them to.
// Not thread safe.
#ifndef MASKKV_TESTS_BENCH_STEP_WORLD_H_
#define MASKKV_TESTS_BENCH_STEP_WORLD_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/engine/decode.h"
#include "core/engine/kv.h"
#include "core/engine/prefill.h"
#include "core/transformer/transformer.h"
#include "core/transformer/weights.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::bench {

// Prints "PROGRAM: what" and ends the process with exit code 1.
[[noreturn]] void Fail(const std::string& what);

void RequireOk(const absl::Status& status);

struct WorldOptions {
  std::string model;                             // folder of a checkpoint
  kernels::DType dtype = kernels::DType::kBF16;  // of weights; pairs have what goes with it
  std::int64_t max_positions = 1024;             // prompt and answer together
  std::string cache_folder{};                    // of packed weights; "": own memory
};

// Why the cache was not used, if it was not, goes to standard error.
transformer::Weights LoadWeights(const WorldOptions& options, kernels::WorkerPool& pool);

class World {
 public:
  // The pool outlives it; worlds that are measured in turn share one.
  World(const WorldOptions& options, kernels::WorkerPool& pool);

  const model::ModelConfig& config() const { return weights_.config(); }
  kernels::DType dtype() const { return weights_.compute(); }
  const transformer::Weights& weights() const { return weights_; }
  transformer::Transformer& transformer() { return transformer_; }
  kernels::WorkerPool& pool() { return pool_; }

  // So many random ids that mean something; the mask id is not among them. Always the same ones.
  std::vector<std::int32_t> Prompt(std::int64_t tokens) const;

  // A real prefill with uniform budgets; seconds of it if asked for.
  std::shared_ptr<const engine::KvView> Prefill(const std::vector<std::int32_t>& prompt,
                                                std::int64_t masks, std::int64_t budget,
                                                double* seconds = nullptr);

  // What a prefill of so long a prompt would have left, as far as a step's time goes: `budget`
  // random pairs a head at random positions.
  std::shared_ptr<const engine::KvView> RandomEntry(std::int64_t prompt_tokens,
                                                    std::int64_t budget) const;

 private:
  kernels::WorkerPool& pool_;
  transformer::Weights weights_;
  transformer::Transformer transformer_;
};

// `batch` equal requests, one block of `rows` masks each, one token a step. When they are decided
// others take their place, so that steps of several steppers are of the same number of masks if
// they are taken in turn.
class Stepper {
 public:
  // No entry: the prompt is recomputed in every step.
  Stepper(World& world, const std::vector<std::int32_t>& prompt,
          std::shared_ptr<const engine::KvView> entry, std::int64_t rows, std::int64_t batch);

  // Takes one step; seconds. Making new requests is not part of it.
  double Step();

  // Of all steps but the very first: medians need seconds, shares where they went.
  const std::vector<double>& seconds() const { return seconds_; }
  const transformer::OpSeconds& ops() const { return ops_; }

 private:
  World& world_;
  engine::DecodeRequest request_;
  const std::int64_t batch_;
  std::unique_ptr<engine::Decoder> decoder_;
  std::int64_t steps_ = 0;
  std::vector<double> seconds_;
  transformer::OpSeconds ops_;
};

}  // namespace maskkv::bench

#endif  // MASKKV_TESTS_BENCH_STEP_WORLD_H_
