// SPDX-License-Identifier: Apache-2.0
//
// Steps and prefills of the engine beside what bounds them, in turn within one process; prints one
// JSON object of raw measurements (seconds, operations a second), from which
// maskkv_tools/performance_rows.py makes the rows of docs/performance.md. Modes:
//
//   growth     steps over entries of prompts of several lengths
//   canvas     steps over an entry and full-canvas steps of one prompt, with the rates that bound
//              both; --prefill: also a real prefill, and all of the answer's steps
//   batches    steps of several batches beside their matrix products by oneDNN alone
//   dtypes     prefills and steps of the model in several types of weights, all loaded anew
//   --repeats
//              times: where weights happen to lie shifts steps by some per cent
//   rates      matrix products, prefill attention, exponentials, memory
//   memory     peak memory of a prefill above the loaded weights
//   serve      prefills on demand: reads numbers of tokens, one a line, answers with seconds
//
// Run it with OMP_WAIT_POLICY=passive (step_products.h).
#include <malloc.h>
#include <omp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/engine/heap_kv.h"
#include "core/engine/prompt.h"
#include "services/common/memory.h"
#include "tests/bench/step_products.h"
#include "tests/bench/step_rates.h"
#include "tests/bench/step_world.h"
#include "tests/bench/timing.h"

namespace maskkv::bench {
namespace {

using Json = nlohmann::json;

struct Options {
  std::string mode, model, dtype = "bf16";
  int threads = 2;
  std::vector<std::int64_t> prompts{1024};
  std::int64_t rows = 32, budget = 256, rounds = 32, full_steps = 1, repeats = 5;
  std::vector<std::string> batches{"1x32"}, dtypes{"bf16", "int8"};
  bool prefill = false;
};

Json OpsJson(const transformer::OpSeconds& ops, double steps) {
  return {{"gemm", ops.gemm / steps},  {"attention", ops.attention / steps},
          {"head", ops.head / steps},  {"norm", ops.norm / steps},
          {"rope", ops.rope / steps},  {"activation", ops.activation / steps},
          {"embed", ops.embed / steps}};
}

Json StepsJson(const Stepper& stepper) {
  const auto steps = static_cast<double>(stepper.seconds().size());
  double sum = 0;
  for (const double seconds : stepper.seconds()) sum += seconds;
  return {{"median_s", Median(stepper.seconds())},
          {"mean_s", sum / steps},
          {"steps", steps},
          {"ops_s", OpsJson(stepper.ops(), steps)}};
}

Json Growth(World& world, const Options& options) {
  std::vector<std::unique_ptr<Stepper>> steppers;
  const auto add = [&](std::int64_t tokens, bool real) {
    const std::vector<std::int32_t> prompt = world.Prompt(tokens);
    auto entry = real ? world.Prefill(prompt, options.rows, options.budget)
                      : world.RandomEntry(tokens, options.budget);
    steppers.push_back(std::make_unique<Stepper>(world, prompt, std::move(entry), options.rows, 1));
  };
  add(options.prompts.front(), true);
  for (const std::int64_t tokens : options.prompts) add(tokens, false);
  for (std::int64_t round = 0; round < options.rounds; ++round) {
    for (auto& stepper : steppers) stepper->Step();
  }
  Json cases = Json::array();
  for (std::size_t i = 0; i < steppers.size(); ++i) {
    Json steps = StepsJson(*steppers[i]);
    steps["prompt"] = options.prompts[i == 0 ? 0 : i - 1];
    steps["entry"] = i == 0 ? "prefill" : "random";
    cases.push_back(std::move(steps));
  }
  return {{"cases", std::move(cases)}};
}

// Products of a step of `batch` requests of `rows` rows, half of them masked, as they are on
// average over a request's steps.
StepProducts ProductsOf(const World& world, std::int64_t batch, std::int64_t rows,
                        ProductWeights& weights) {
  return {world.config(), batch * rows, std::max<std::int64_t>(1, batch * (rows + 1) / 2),
          world.dtype(), weights};
}

Json ProductsJson(const StepProducts& products, const std::vector<double>& seconds) {
  return {{"median_s", Median(seconds)},
          {"dtype", products.dtype() == kernels::DType::kBF16 ? "bf16" : "f32"},
          {"flops", products.flops()},
          {"weight_bytes", products.weight_bytes()}};
}

Json CanvasMode(World& world, const Options& options) {
  const std::int64_t tokens = options.prompts.front(), rows = options.rows;
  const std::vector<std::int32_t> prompt = world.Prompt(tokens);
  Json result = {{"prompt", tokens}, {"rows", rows}, {"budget", options.budget}};
  double prefill_seconds = 0;
  std::shared_ptr<const engine::KvView> entry;
  if (options.prefill) {
    entry = world.Prefill(prompt, rows, options.budget, &prefill_seconds);
    result["prefill_s"] = prefill_seconds;
  } else {
    entry = world.RandomEntry(tokens, options.budget);
  }
  Stepper cached(world, prompt, entry, rows, 1);
  ProductWeights weights;
  StepProducts products = ProductsOf(world, 1, rows, weights);
  StepProducts tall(world.config(), transformer::kRowBlock, transformer::kRowBlock, world.dtype(),
                    weights);
  std::vector<double> full, alone, tall_alone;
  products.Run();
  tall.Run();
  double attention = 0;
  // One turn of everything around each full step; with a prefill, the whole answer in the first.
  for (std::int64_t turn = 0; turn < options.full_steps; ++turn) {
    Stepper none(world, prompt, nullptr, rows, 1);
    full.push_back(none.Step());
    double answer = 0;
    const std::int64_t steps = options.prefill ? rows : options.rounds;
    for (std::int64_t step = 0; step < steps; ++step) {
      answer += cached.Step();
      alone.push_back(products.Run());
    }
    if (options.prefill) result["answer_s"] = answer;
    tall_alone.push_back(tall.Run());
    attention = std::max(
        attention, AttentionRate(world, {.queries = std::min(transformer::kRowBlock, tokens + rows),
                                         .own_rows = tokens + rows}));
  }
  result["full_s"] = Median(full);
  result["cached"] = StepsJson(cached);
  result["products"] = ProductsJson(products, alone);
  result["tall_products"] = ProductsJson(tall, tall_alone);
  result["attention_full_flops"] = attention;
  result["attention_step_flops"] = AttentionRate(
      world, {.queries = rows, .own_rows = rows, .pairs = std::min(options.budget, tokens)});
  return result;
}

// "8x16": requests and rows of each.
std::pair<std::int64_t, std::int64_t> ParseBatch(const std::string& text) {
  long long batch = 0, rows = 0;
  if (std::sscanf(text.c_str(), "%lldx%lld", &batch, &rows) != 2 || batch < 1 || rows < 1) {
    Fail("--batches: expected REQUESTSxROWS, found " + text);
  }
  return {batch, rows};
}

Json Batches(World& world, const Options& options) {
  struct Case {
    std::string name;
    std::int64_t batch, rows;
    Stepper stepper;
    StepProducts products;
    std::vector<double> alone{};
  };
  const std::int64_t tokens = options.prompts.front();
  const std::vector<std::int32_t> prompt = world.Prompt(tokens);
  const auto entry = world.RandomEntry(tokens, options.budget);
  ProductWeights weights;
  std::vector<std::unique_ptr<Case>> cases;
  for (const std::string& name : options.batches) {
    const auto [batch, rows] = ParseBatch(name);
    cases.push_back(std::unique_ptr<Case>(new Case{name, batch, rows,
                                                   Stepper(world, prompt, entry, rows, batch),
                                                   ProductsOf(world, batch, rows, weights)}));
    cases.back()->products.Run();
  }
  for (std::int64_t round = 0; round < options.rounds; ++round) {
    for (auto& each : cases) {
      each->stepper.Step();
      each->alone.push_back(each->products.Run());
    }
  }
  Json result = Json::array();
  for (const auto& each : cases) {
    result.push_back({{"name", each->name},
                      {"batch", each->batch},
                      {"rows", each->rows},
                      {"pairs", std::min(options.budget, tokens)},
                      {"steps", StepsJson(each->stepper)},
                      {"products", ProductsJson(each->products, each->alone)}});
  }
  return {{"cases", std::move(result)}};
}

kernels::DType DTypeOf(const std::string& name) {
  if (name == "f32") return kernels::DType::kF32;
  return name == "bf16" ? kernels::DType::kBF16 : kernels::DType::kInt8;
}

// Longest prompt that `options` will measure, and room for an answer.
std::int64_t MaxPositions(const Options& options) {
  const std::int64_t longest = *std::max_element(options.prompts.begin(), options.prompts.end());
  // serve is told its prompts later.
  const std::int64_t most = options.mode == "serve" ? std::int64_t{1} << 15 : longest;
  return std::max<std::int64_t>(most, 1024) + 1024;
}

Json DTypes(const Options& options, kernels::WorkerPool& pool) {
  struct Case {
    World world;
    std::unique_ptr<Stepper> stepper{};
    double prefill_seconds = 0;
  };
  Json result = Json::object();
  for (std::int64_t repeat = 0; repeat < options.repeats; ++repeat) {
    std::vector<std::unique_ptr<Case>> cases;
    for (const std::string& name : options.dtypes) {
      cases.push_back(std::unique_ptr<Case>(
          new Case{{{options.model, DTypeOf(name), MaxPositions(options)}, pool}}));
      Case& added = *cases.back();
      const std::vector<std::int32_t> prompt = added.world.Prompt(options.prompts.front());
      added.world.Prefill(prompt, options.rows, options.budget);  // the first one allocates
      auto entry =
          added.world.Prefill(prompt, options.rows, options.budget, &added.prefill_seconds);
      added.stepper =
          std::make_unique<Stepper>(added.world, prompt, std::move(entry), options.rows, 1);
    }
    for (std::int64_t round = 0; round < options.rounds; ++round) {
      for (auto& each : cases) each->stepper->Step();
    }
    for (std::size_t i = 0; i < cases.size(); ++i) {
      Json& of = result[options.dtypes[i]];
      of["step_s"].push_back(Median(cases[i]->stepper->seconds()));
      of["prefill_s"].push_back(cases[i]->prefill_seconds);
      of["weight_bytes"] = cases[i]->world.weights().packed_bytes();
    }
  }
  return {{"cases", std::move(result)},
          {"prompt", options.prompts.front()},
          {"rows", options.rows},
          {"budget", options.budget}};
}

Json Rates(World& world, const Options& options) {
  double gemm = 0;
  for (const std::int64_t width : {1024, 2048}) {
    for (const std::int64_t rows : {256, 1024}) {
      gemm = std::max(gemm, GemmRate(rows, width, 2 * width, world.dtype()));
    }
  }
  Json attention = Json::array();
  for (const std::int64_t tokens : options.prompts) {
    attention.push_back(
        {{"keys", tokens},
         {"flops", AttentionRate(world, {.queries = std::min(transformer::kRowBlock, tokens),
                                         .own_rows = tokens})}});
  }
  return {{"gemm_flops", gemm},
          {"attention", std::move(attention)},
          {"exps", ExpRate(world.pool())},
          {"triad_bytes", TriadRate(world.pool())}};
}

Json Memory(World& world, const Options& options) {
  const std::int64_t tokens = options.prompts.front();
  // The embedding is a part of the mapped weights: resident before, not taken by the prefill.
  std::vector<float> row(static_cast<std::size_t>(world.config().hidden));
  for (std::int64_t id = 0; id < world.config().vocab_rows; ++id) {
    world.weights().Embed(static_cast<std::int32_t>(id), row.data());
  }
  malloc_trim(0);
  if (!services::ResetPeakMemory()) Fail("expected a kernel that lets clear_refs reset the peak");
  const std::int64_t before = services::ResidentMemoryBytes();
  {
    // The last layer advances no prompt rows in a prefill; here every one of a short prompt, so
    // that scratch memory is that of a layer in the middle.
    const std::vector<std::int32_t> prompt = world.Prompt(2 * transformer::kRowBlock);
    const auto rows = engine::PromptThenMasks(prompt, options.rows, world.config());
    if (!engine::Prefiller(world.transformer()).MeasureImportance(rows).ok()) Fail("importance");
  }
  double seconds = 0;
  const auto entry = world.Prefill(world.Prompt(tokens), options.rows, options.budget, &seconds);
  const std::int64_t peak = services::PeakMemoryBytes() - before;
  return {{"prompt", tokens},
          {"peak_bytes", peak},
          {"entry_bytes", entry->bytes()},
          {"prefill_s", seconds},
          {"layers", world.config().layers},
          {"weight_bytes", world.weights().packed_bytes()}};
}

void Serve(World& world, const Options& options) {
  std::int64_t tokens = 0;
  while (std::cin >> tokens) {
    double seconds = 0;
    world.Prefill(world.Prompt(tokens), options.rows, options.budget, &seconds);
    std::printf("%s\n", Json{{"prompt", tokens}, {"prefill_s", seconds}}.dump().c_str());
    std::fflush(stdout);
  }
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app{"Steps and prefills of the engine beside what bounds them"};
  app.add_option("mode", options.mode)
      ->required()
      ->check(CLI::IsMember({"growth", "canvas", "batches", "dtypes", "rates", "memory", "serve"}));
  app.add_option("--model", options.model, "checkpoint")->required();
  app.add_option("--dtype", options.dtype)->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--threads", options.threads, "of the engine and of oneDNN alone");
  app.add_option("--prompts", options.prompts, "tokens; modes with one prompt take the first")
      ->delimiter(',');
  app.add_option("--rows", options.rows, "response rows of a request");
  app.add_option("--budget", options.budget, "pairs kept a head");
  app.add_option("--rounds", options.rounds, "of alternation");
  app.add_option("--full-steps", options.full_steps, "canvas: steps without a cache");
  app.add_option("--batches", options.batches, "batches: REQUESTSxROWS,...")->delimiter(',');
  app.add_option("--dtypes", options.dtypes, "dtypes: which, in turn")
      ->delimiter(',')
      ->check(CLI::IsMember({"f32", "bf16", "int8"}));
  app.add_option("--repeats", options.repeats, "dtypes: times that all are loaded anew")
      ->check(CLI::Range(1, 1000));
  app.add_flag("--prefill", options.prefill, "canvas: a real prefill and the whole answer");
  CLI11_PARSE(app, argc, argv);
  // Large buffers go back to the system when freed, so that one case does not pay for another.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  omp_set_num_threads(options.threads);
  kernels::WorkerPool pool(options.threads);
  Json result;
  if (options.mode == "dtypes") {
    result = DTypes(options, pool);
  } else {
    World world({options.model, DTypeOf(options.dtype), MaxPositions(options)}, pool);
    if (options.mode == "growth") result = Growth(world, options);
    if (options.mode == "canvas") result = CanvasMode(world, options);
    if (options.mode == "batches") result = Batches(world, options);
    if (options.mode == "rates") result = Rates(world, options);
    if (options.mode == "memory") result = Memory(world, options);
    if (options.mode == "serve") {
      Serve(world, options);
      return 0;
    }
    result["dtype"] = options.dtype;
  }
  result["mode"] = options.mode;
  result["threads"] = options.threads;
  std::printf("%s\n", result.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace maskkv::bench

int main(int argc, char** argv) { return maskkv::bench::Main(argc, argv); }
