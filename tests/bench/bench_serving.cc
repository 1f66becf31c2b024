// SPDX-License-Identifier: Apache-2.0
//
// What serving costs: the services as processes (scripts/bench-serving starts them) beside the
// engine alone and beside matrix products alone, in turn within one run, as one JSON object.
//
//   overhead    one request; time of a step seen by a client of the decode service against the same
//               steps of an engine in this process. Rounds alternate; ratio of the two medians.
//               Where a process's memory happens to lie shifts its steps by a per cent or more as
//               long as it lives (less when both sides map one file of weights), so the script
//               measures over several starts of both. What serving adds is a time, so its share is
//               told of steps of about 10 ms: --fit-step-ms prints the rows that such a step has.
//   first step  from the end of prefill to the first step's end, without that step's own time:
//   lease,
//               descriptor, map, checks, joining the batch.
//   throughput  n requests at once against what the matrix products of one step over all their rows
//               take when oneDNN runs alone (step_products.h).
#include <omp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "grpcpp/grpcpp.h"
#include "maskkv/v1/decode.grpc.pb.h"
#include "tests/bench/step_products.h"
#include "tests/bench/step_world.h"
#include "tests/bench/timing.h"

namespace maskkv::bench {
namespace {

// Fewer, and one round that something else disturbed moves the median.
constexpr int kThroughputRounds = 9;
constexpr std::int64_t kMostFittingRows = 64;

struct Options {
  std::string server, model, cache_folder;
  int threads = 2;
  std::int64_t prompt = 1024;
  std::int64_t rows = 32;  // of a request: masks and steps
  std::int64_t budget = 128;
  int rounds = 5;
  std::vector<int> concurrency{1, 2, 4, 8, 16};
  std::string only;  // overhead, throughput or empty
  double fit_step_ms = 0;
};

// Seconds of every step but the first of one request. REQUIRES: the stepper's request is a new one;
// so is the next then.
std::vector<double> StepsAlone(Stepper& engine, std::int64_t rows) {
  std::vector<double> seconds;
  for (std::int64_t step = 0; step < rows; ++step) seconds.push_back(engine.Step());
  seconds.erase(seconds.begin());
  return seconds;
}

// The number of response rows, a multiple of 8, whose step takes most nearly `milliseconds`.
std::int64_t FittingRows(World& world, const Options& options) {
  const std::vector<std::int32_t> prompt = world.Prompt(options.prompt);
  std::int64_t best = 0;
  double best_distance = 0;
  for (std::int64_t rows = 8; rows <= kMostFittingRows; rows += 8) {
    Stepper stepper(world, prompt, world.RandomEntry(options.prompt, options.budget), rows, 1);
    const double distance = std::abs(1e3 * Median(StepsAlone(stepper, rows)) - options.fit_step_ms);
    if (best != 0 && distance >= best_distance) break;
    best = rows;
    best_distance = distance;
  }
  return best;
}

// A client of the decode service.
class Served {
 public:
  struct Answer {
    std::vector<double> steps;  // seconds between step events
    double first_step = 0;      // ms from the end of prefill to the first committed token
    double seconds = 0;         // from the first step event to the last
    std::int64_t rows = 0;
  };

  Served(const Options& options, const std::vector<std::int32_t>& prompt) : options_(options) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);  // as the Python client
    stub_ = v1::DecodeService::NewStub(
        grpc::CreateCustomChannel(options.server, grpc::InsecureChannelCredentials(), arguments));
    request_.mutable_prompt()->mutable_tokens()->mutable_ids()->Add(prompt.begin(), prompt.end());
    v1::Sampler& sampler = *request_.mutable_sampler();
    sampler.set_gen_length(options.rows);
    sampler.set_block_length(options.rows);
    sampler.set_steps(options.rows);
    sampler.set_ignore_eos(true);
    request_.mutable_keep()->set_budget(options.budget);
    request_.mutable_keep()->set_layer_rule(v1::LAYER_RULE_UNIFORM);
  }

  Answer Ask() const {
    grpc::ClientContext context;
    const auto stream = stub_->Generate(&context, request_);
    Answer answer;
    v1::GenerateEvent event;
    Clock::time_point last;
    while (stream->Read(&event)) {
      if (event.has_step()) {
        if (event.step().step() > 0) answer.steps.push_back(Since(last));
        last = Clock::now();
      } else if (event.has_finished()) {
        const v1::Timings& timings = event.finished().timings();
        answer.first_step = timings.first_token_ms() - timings.prefill_ms();
        answer.rows = event.finished().usage().rows();
      }
    }
    if (const grpc::Status status = stream->Finish(); !status.ok()) Fail(status.error_message());
    for (const double step : answer.steps) answer.seconds += step;
    return answer;
  }

 private:
  const Options& options_;
  std::unique_ptr<v1::DecodeService::Stub> stub_;
  v1::GenerateRequest request_;
};

nlohmann::json Overhead(Stepper& engine, const Served& served, const Options& options) {
  std::vector<double> alone, through, first;
  served.Ask();  // prefill; from now on the entry is found
  StepsAlone(engine, options.rows);
  for (int round = 0; round < options.rounds; ++round) {
    const std::vector<double> ours = StepsAlone(engine, options.rows);
    const Served::Answer answer = served.Ask();
    alone.insert(alone.end(), ours.begin(), ours.end());
    through.insert(through.end(), answer.steps.begin(), answer.steps.end());
    first.push_back(answer.first_step - 1e3 * Median(answer.steps));
  }
  return {{"engine_step_ms", 1e3 * Median(alone)},
          {"served_step_ms", 1e3 * Median(through)},
          {"ratio", Median(through) / Median(alone)},
          {"before_first_step_ms", Median(first)},
          {"rounds", options.rounds},
          {"steps", through.size()}};
}

// Seconds that one step's matrix products take alone: the median of a few passes.
double Seconds(StepProducts& products) {
  std::vector<double> times;
  for (int i = 0; i < 5; ++i) times.push_back(products.Run());
  return Median(times);
}

// Tokens a second of `requests` clients that ask at the same time, once each.
double TokensASecond(const Served& served, int requests, std::int64_t rows) {
  std::vector<Served::Answer> answers(static_cast<std::size_t>(requests));
  std::vector<std::thread> clients;
  const Clock::time_point start = Clock::now();
  for (Served::Answer& answer : answers) {
    clients.emplace_back([&served, &answer] { answer = served.Ask(); });
  }
  for (std::thread& client : clients) client.join();
  return static_cast<double>(requests * rows) / Since(start);
}

nlohmann::json Throughput(const model::ModelConfig& config, const Served& served,
                          const Options& options) {
  nlohmann::json table = nlohmann::json::array();
  ProductWeights weights;
  for (const int requests : options.concurrency) {
    // A request decides one row a step, so half of its rows are masked on average.
    StepProducts products(config, requests * options.rows,
                          std::max<std::int64_t>(1, requests * (options.rows + 1) / 2),
                          kernels::DType::kF32, weights);
    std::vector<double> rates, limits, shares;
    TokensASecond(served, requests, options.rows);
    for (int round = 0; round < std::max(kThroughputRounds, options.rounds); ++round) {
      limits.push_back(requests / Seconds(products));
      rates.push_back(TokensASecond(served, requests, options.rows));
      shares.push_back(rates.back() / limits.back());
    }
    table.push_back({{"requests", requests},
                     {"tokens_per_second", Median(rates)},
                     {"limit_tokens_per_second", Median(limits)},
                     {"share", Median(shares)}});
  }
  return table;
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app{"What serving costs beside the engine alone and beside matrix products alone"};
  auto* const server =
      app.add_option("--server", options.server, "HOST:PORT or unix:PATH of decode");
  app.add_option("--model", options.model, "the checkpoint that it serves")->required();
  app.add_option("--weights-cache", options.cache_folder,
                 "of packed weights, as the server has it");
  app.add_option("--threads", options.threads, "of the engine and the products");
  app.add_option("--prompt", options.prompt, "tokens");
  app.add_option("--rows", options.rows, "masks and steps of a request");
  app.add_option("--rounds", options.rounds, "of alternation");
  app.add_option("--concurrency", options.concurrency, "requests at once")->delimiter(',');
  app.add_option("--only", options.only, "one of the two measurements")
      ->check(CLI::IsMember({"overhead", "throughput"}));
  app.add_option("--fit-step-ms", options.fit_step_ms,
                 "no measurements: prints the rows whose step takes about so long")
      ->check(CLI::PositiveNumber)
      ->excludes(server);
  CLI11_PARSE(app, argc, argv);
  if (options.server.empty() == (options.fit_step_ms == 0)) Fail("--server or --fit-step-ms");
  omp_set_num_threads(options.threads);
  // The engine in this process: no socket, no daemon, the same entry in the heap.
  kernels::WorkerPool pool(options.threads);
  World world({options.model, kernels::DType::kF32,
               options.prompt + std::max(options.rows, kMostFittingRows), options.cache_folder},
              pool);
  if (options.fit_step_ms > 0) {
    std::printf("%lld\n", static_cast<long long>(FittingRows(world, options)));
    return 0;
  }
  const std::vector<std::int32_t> prompt = world.Prompt(options.prompt);
  const Served served(options, prompt);
  nlohmann::json result = {{"prompt_tokens", options.prompt},
                           {"rows", options.rows},
                           {"budget", options.budget},
                           {"threads", options.threads}};
  if (options.only != "throughput") {
    Stepper engine(world, prompt, world.Prefill(prompt, options.rows, options.budget), options.rows,
                   1);
    result["overhead"] = Overhead(engine, served, options);
  }
  if (options.only != "overhead") {
    result["throughput"] = Throughput(world.config(), served, options);
  }
  std::printf("%s\n", result.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace maskkv::bench

int main(int argc, char** argv) { return maskkv::bench::Main(argc, argv); }
