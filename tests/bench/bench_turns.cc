// SPDX-License-Identifier: Apache-2.0
//
// Steps of running streams while a long prompt is prefilled, as one Markdown table (docs/turns.md):
// alone, beside the prefill as the scheduler likes, and in turns (core/schedule/turns.h). Step
// loop and prefill have a thread and a pool each, as in `maskkv serve`. The prefill is ended after
// some seconds; how far it got is counted in tiles of equal rows, so that modes compare.
//
//   bench_turns --model DIR [--prompt 32768] [--rows 32] [--batch 1] [--threads 2] [--seconds 12]
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/engine/heap_kv.h"
#include "core/engine/prompt.h"
#include "core/engine/tile_rows.h"
#include "core/schedule/compute_turns.h"
#include "core/schedule/file_turns.h"
#include "tests/bench/step_world.h"
#include "tests/bench/timing.h"

namespace maskkv::bench {
namespace {

using schedule::Side;

struct Options {
  std::string model = "models/tiny-llada";
  std::int64_t prompt = 32'768, rows = 32, batch = 1, budget = 128;
  int threads = 2;
  double seconds = 12;
};

struct Mode {
  std::string name;
  bool prefill = true;
  std::int64_t tile_rows = transformer::kRowBlock;
  schedule::Turns* step = nullptr;  // what each side takes turns by
  schedule::Turns* tile = nullptr;
};

// A prefill that runs until it is told to stop, on a pool of its own.
class LongPrefill {
 public:
  LongPrefill(const World& world, const Options& options)
      : pool_(options.threads),
        transformer_(world.weights(), pool_, options.prompt + options.rows),
        rows_(engine::PromptThenMasks(world.Prompt(options.prompt), options.rows, world.config())) {
  }

  // Tiles a second are counted in rows of a layer.
  double Run(const Mode& mode, const std::atomic<bool>& over) {
    engine::PrefillRequest request;
    request.rows = rows_;
    request.plan.layer_rule = engine::LayerRule::kUniform;
    request.plan.budget = 128;
    request.tile_rows = mode.tile_rows;
    std::int64_t tiles = 0;
    request.between_tiles = [&] {
      ++tiles;
      if (mode.tile != nullptr) mode.tile->GiveWay();
      return over ? absl::CancelledError("enough") : absl::OkStatus();
    };
    engine::HeapKvEntry entry;
    const Clock::time_point start = Clock::now();
    {
      const schedule::ScopedTurn turn(mode.tile, Side::kTile);
      const absl::Status status = engine::Prefiller(transformer_).Run(request, entry).status();
      if (!status.ok() && !absl::IsCancelled(status)) Fail(std::string(status.message()));
      if (status.ok()) Fail("--prompt: expected a prompt that takes longer than --seconds");
    }
    return Rows(tiles, mode.tile_rows) / Since(start);
  }

 private:
  // Rows that so many tiles have advanced through a layer's attention; keys and values come first.
  double Rows(std::int64_t tiles, std::int64_t tile_rows) const {
    const auto up = [](std::int64_t a, std::int64_t b) { return (a + b - 1) / b; };
    const auto n = static_cast<std::int64_t>(rows_.size());
    const std::int64_t projected = up(n, transformer::kRowBlock);
    const std::int64_t advanced = up(n, tile_rows);  // and one tile of masks and eviction
    const std::int64_t layer = projected + advanced + 1;
    const std::int64_t left = std::clamp<std::int64_t>(tiles % layer - projected, 0, advanced);
    return static_cast<double>(tiles / layer * n + left * tile_rows);
  }

  kernels::WorkerPool pool_;
  transformer::Transformer transformer_;
  const std::vector<engine::Row> rows_;
};

double Share(std::vector<double>& sorted, double share) {
  std::ranges::sort(sorted);
  const auto last = static_cast<double>(sorted.size() - 1);
  return sorted[static_cast<std::size_t>(share * last)];
}

// Milliseconds between two steps' ends, for a stream that always asks.
void Measure(World& world, const Options& options, const Mode& mode, LongPrefill& prefill) {
  const std::vector<std::int32_t> prompt = world.Prompt(options.prompt);
  Stepper stepper(world, prompt, world.RandomEntry(options.prompt, options.budget), options.rows,
                  options.batch);
  stepper.Step();
  std::atomic<bool> over = false;
  double rows_a_second = 0;
  std::thread other;
  if (mode.prefill) other = std::thread([&] { rows_a_second = prefill.Run(mode, over); });
  std::vector<double> steps;
  const Clock::time_point start = Clock::now();
  while (Since(start) < options.seconds) {
    const Clock::time_point asked = Clock::now();
    {
      const schedule::ScopedTurn turn(mode.step, Side::kStep);
      stepper.Step();
    }
    steps.push_back(1e3 * Since(asked));
  }
  over = true;
  if (other.joinable()) other.join();
  const double p50 = Share(steps, 0.5), p99 = Share(steps, 0.99), most = Share(steps, 1);
  std::printf("| %s | %zu | %.1f | %.1f | %.1f | ", mode.name.c_str(), steps.size(), p50, p99,
              most);
  mode.prefill ? std::printf("%.0f |\n", rows_a_second) : std::printf(" |\n");
  std::fflush(stdout);
}

// How long the prefill's rows take when no step runs.
void MeasureAlone(const Options& options, LongPrefill& prefill, const char* name,
                  std::int64_t tile_rows) {
  std::atomic<bool> over = false;
  std::thread timer([&] {
    std::this_thread::sleep_for(std::chrono::duration<double>(options.seconds));
    over = true;
  });
  const double rows = prefill.Run({.name = name, .tile_rows = tile_rows}, over);
  timer.join();
  std::printf("| %s | | | | | %.0f |\n", name, rows);
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Steps during a long prefill.", "bench_turns");
  app.add_option("--model", options.model)->capture_default_str();
  app.add_option("--prompt", options.prompt)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--rows", options.rows)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--batch", options.batch)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--threads", options.threads)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--seconds", options.seconds)->check(CLI::PositiveNumber)->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  kernels::WorkerPool pool(options.threads);
  World world({.model = options.model,
               .dtype = kernels::DType::kF32,
               .max_positions = options.prompt + options.rows},
              pool);
  LongPrefill prefill(world, options);
  const std::int64_t tile = engine::TileRows(options.prompt + options.rows);
  std::printf("| mode | steps | p50, ms | p99, ms | longest, ms | prefill, rows of a layer/s |\n");
  std::printf("| --- | ---: | ---: | ---: | ---: | ---: |\n");
  MeasureAlone(options, prefill, "prefill alone, blocks of 256 rows", transformer::kRowBlock);
  MeasureAlone(options, prefill, "prefill alone, in tiles", tile);
  Measure(world, options, {.name = "steps alone", .prefill = false}, prefill);
  Measure(world, options, {.name = "side by side"}, prefill);
  const SteadyClock clock;
  for (const double share : {0.5, 0.0}) {
    const std::string name = "turns, share " + std::string(share > 0 ? "0.5" : "0");
    schedule::ComputeTurns turns(share, clock);
    Measure(world, options, {.name = name, .tile_rows = tile, .step = &turns, .tile = &turns},
            prefill);
  }
  const std::string path = "/tmp/bench_turns." + std::to_string(::getpid());
  const auto step = schedule::FileTurns::Open(path, {.side = Side::kStep});
  const auto tiles = schedule::FileTurns::Open(path, {.side = Side::kTile});
  ::unlink(path.c_str());
  if (!step.ok() || !tiles.ok()) Fail(path + ": expected a file to take turns by");
  Measure(world, options,
          {.name = "turns by a file, share 0.5",
           .tile_rows = tile,
           .step = step->get(),
           .tile = tiles->get()},
          prefill);
  return 0;
}

}  // namespace
}  // namespace maskkv::bench

int main(int argc, char** argv) { return maskkv::bench::Main(argc, argv); }
