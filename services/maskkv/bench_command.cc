// SPDX-License-Identifier: Apache-2.0
//
// maskkv bench: step time against prompt length for several caches, and response caches over them,
// interleaved step by step in one run so that their ratios hold on a shared machine; where a step's
// time goes; and the memory that each way of prefilling needs. Prompts are random ids, so any
// checkpoint will do.
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <numeric>
#include <random>

#include "absl/strings/str_format.h"
#include "core/base/scoped_timer.h"
#include "core/base/status_macros.h"
#include "core/engine/prompt.h"
#include "services/common/memory.h"
#include "services/maskkv/command.h"
#include "services/maskkv/flag_checks.h"
#include "services/maskkv/generation.h"
#include "services/maskkv/json_report.h"
#include "services/maskkv/progress.h"
#include "services/maskkv/response_flags.h"

namespace maskkv::cli {
namespace {

constexpr const char* kBenchExamples = R"(Examples:
  maskkv bench --model DIR --prompt-lengths 256,1024,4096,16384 --budget 128
  maskkv bench --model DIR --batch 8 --steps 16 --caches maskkv --json)";

double Mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// One (prompt length, cache) whose steps are timed.
struct Case {
  std::int64_t prompt_tokens = 0;
  std::string cache;
  ResponseFlags response;
  std::int64_t response_cache_bytes = 0;  // of a request
  double prefill_seconds = 0;
  std::int64_t entry_bytes = 0;
  std::unique_ptr<engine::Decoder> decoder;
  std::vector<double> step_seconds;
  transformer::OpSeconds ops;
};

Json OpsJson(const transformer::OpSeconds& ops) {
  return {{"gemm", ops.gemm / ops.total()},  {"attention", ops.attention / ops.total()},
          {"head", ops.head / ops.total()},  {"norm", ops.norm / ops.total()},
          {"rope", ops.rope / ops.total()},  {"activation", ops.activation / ops.total()},
          {"embed", ops.embed / ops.total()}};
}

class BenchCommand final : public Command {
 public:
  explicit BenchCommand(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("bench", "Measure prefill, steps and memory");
    sub->footer(std::string(kBenchExamples) + "\n\n" + kExitCodesHelp);
    model_.Declare(*sub);
    sub->add_option("--prompt-lengths", prompt_lengths_, "Tokens of the prompts")
        ->delimiter(',')
        ->check(IntegerIn(1, 1 << 20))
        ->capture_default_str();
    sub->add_option("--caches", caches_, "Which caches to time")
        ->delimiter(',')
        ->check(OneOf({"maskkv", "full", "none"}))
        ->capture_default_str();
    DeclareResponseCaches(*sub, response_caches_);
    sub->add_option("--budget", budget_, "Mean pairs kept a head a layer")
        ->check(IntegerIn(1, kLargestCount))
        ->capture_default_str();
    sub->add_option("--gen-length", gen_length_, "Response rows of a request")
        ->check(IntegerIn(1, 1 << 16))
        ->capture_default_str();
    sub->add_option("--steps", steps_, "Timed steps; at most --gen-length")
        ->check(IntegerIn(1, 1 << 16))
        ->capture_default_str();
    sub->add_option("--none-steps", none_steps_, "Timed steps without a cache")
        ->check(IntegerIn(1, 1 << 16))
        ->capture_default_str();
    sub->add_option("--batch", batch_, "Requests in a step")
        ->check(IntegerIn(1, 1024))
        ->capture_default_str();
    sub->add_option("--seed", seed_, "Of the random prompts")
        ->check(AnySeed())
        ->capture_default_str();
    sub->add_flag("--memory", memory_, "Also measure the peak memory of each way of prefilling");
    sub->add_flag("--json", json_, "Print one JSON object");
  }

  absl::Status Run() override {
    if (steps_ > gen_length_) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "steps: expected at most --gen-length %d, found %d", gen_length_, steps_));
    }
    MASKKV_ASSIGN_OR_RETURN(host_, ModelHost::Load(model_));
    max_positions_ =
        *std::max_element(prompt_lengths_.begin(), prompt_lengths_.end()) + gen_length_;
    Json memory = Json::array();
    if (memory_) {
      MASKKV_RETURN_IF_ERROR(MeasureMemory(memory));
    }
    MASKKV_RETURN_IF_ERROR(host_->Prepare(max_positions_, HoldsAllLayers()));
    MASKKV_RETURN_IF_ERROR(MakeCases());
    MASKKV_RETURN_IF_ERROR(TimeSteps());
    Report(std::move(memory));
    return absl::OkStatus();
  }

 private:
  bool HoldsAllLayers() const {
    return std::find(caches_.begin(), caches_.end(), "full") != caches_.end();
  }

  std::vector<std::int32_t> RandomPrompt(std::int64_t tokens) const {
    std::mt19937_64 random(seed_);
    std::vector<std::int32_t> prompt;
    while (static_cast<std::int64_t>(prompt.size()) < tokens) {
      const auto id = static_cast<std::int32_t>(
          random() % static_cast<std::uint64_t>(host_->config().vocab_rows));
      if (id != host_->config().mask_id) prompt.push_back(id);
    }
    return prompt;
  }

  engine::EvictionPlan Plan(engine::Selection selection, engine::LayerRule rule) const {
    engine::EvictionPlan plan;
    plan.selection = selection;
    plan.layer_rule = rule;
    plan.budget = budget_;
    // Equal importances: the figures are about speed, and a random model has no profile.
    plan.importance.assign(static_cast<std::size_t>(host_->config().layers), 1.0);
    return plan;
  }

  absl::Status MakeCases() {
    ProgressBar progress("prefills",
                         static_cast<std::int64_t>(prompt_lengths_.size() * caches_.size()));
    std::vector<ResponseFlags> responses = ResponseCaches(response_caches_);
    if (responses.empty()) responses.emplace_back();
    for (const std::int64_t tokens : prompt_lengths_) {
      const std::vector<std::int32_t> prompt = RandomPrompt(tokens);
      for (const std::string& cache : caches_) {
        Case item;
        item.prompt_tokens = tokens;
        item.cache = cache;
        engine::DecodeRequest request;
        request.prompt_tokens = tokens;
        request.params.gen_length = request.params.block_length = gen_length_;
        request.params.steps = gen_length_;
        request.params.ignore_eos = true;
        if (cache == "none") {
          request.prompt = prompt;
        } else {
          const auto selection =
              cache == "full" ? engine::Selection::kFull : engine::Selection::kMaskKv;
          MASKKV_ASSIGN_OR_RETURN(const PrefilledPrompt prefilled,
                                  PrefillPrompt(*host_, prompt, gen_length_,
                                                Plan(selection, engine::LayerRule::kOffline)));
          item.prefill_seconds = prefilled.seconds;
          item.entry_bytes = prefilled.entry->bytes();
          request.prompt = engine::RecomputedTail(host_->config(), prompt);
          request.cache = prefilled.entry;
        }
        for (const ResponseFlags& response : responses) {
          MASKKV_RETURN_IF_ERROR(AddCase(item, response, request));
        }
        progress.Advance();
      }
    }
    return absl::OkStatus();
  }

  // Adds what `item` and `request` say of a prompt and its cache, with this response cache.
  absl::Status AddCase(const Case& item, const ResponseFlags& response,
                       engine::DecodeRequest& request) {
    Case& added = cases_.emplace_back();
    added.prompt_tokens = item.prompt_tokens;
    added.cache = item.cache;
    added.prefill_seconds = item.prefill_seconds;
    added.entry_bytes = item.entry_bytes;
    added.response = response;
    added.decoder = std::make_unique<engine::Decoder>(host_->transformer());
    response.Apply(request.params);
    for (int i = 0; i < batch_; ++i) {
      request.params.seed = static_cast<std::uint64_t>(i);
      MASKKV_RETURN_IF_ERROR(added.decoder->Add(request).status());
    }
    return absl::OkStatus();
  }

  std::int64_t TimedSteps(const Case& item) const {
    return item.cache == "none" ? std::min(none_steps_, steps_) : steps_;
  }

  absl::Status TimeSteps() {
    ProgressBar progress("steps", steps_);
    for (std::int64_t step = 0; step < steps_; ++step) {
      for (Case& item : cases_) {
        if (step >= TimedSteps(item)) continue;
        if (Interrupted()) return absl::CancelledError("interrupted");
        const transformer::OpSeconds before = host_->transformer().op_seconds();
        double seconds = 0;
        {
          const ScopedTimer timer(seconds);
          for (const engine::StepEvent& event : item.decoder->Step()) {
            MASKKV_RETURN_IF_ERROR(event.status);
            item.response_cache_bytes = event.response_cache_bytes;
          }
        }
        item.step_seconds.push_back(seconds);
        // The first step may allocate; it is kept out of the shares.
        if (step > 0 || TimedSteps(item) == 1) {
          item.ops.Add(host_->transformer().op_seconds());
          item.ops.Add(before, -1);
        }
      }
      progress.Advance();
    }
    return absl::OkStatus();
  }

  // Peak resident memory of a prefill above what the loaded model takes.
  absl::Status MeasureMemory(Json& memory) {
    struct Way {
      const char* name;
      engine::Selection selection;
      engine::LayerRule rule;
    };
    constexpr Way kWays[] = {{"offline", engine::Selection::kMaskKv, engine::LayerRule::kOffline},
                             {"online", engine::Selection::kMaskKv, engine::LayerRule::kOnline},
                             {"full", engine::Selection::kFull, engine::LayerRule::kOffline}};
    // Large buffers go back to the system when freed, so that one way does not pay for another.
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    for (const std::int64_t tokens : prompt_lengths_) {
      const std::vector<std::int32_t> prompt = RandomPrompt(tokens);
      for (const Way& way : kWays) {
        MASKKV_RETURN_IF_ERROR(host_->Prepare(
            tokens + gen_length_,
            way.selection == engine::Selection::kFull || way.rule == engine::LayerRule::kOnline));
        malloc_trim(0);
        if (!services::ResetPeakMemory()) {
          return absl::UnimplementedError(
              "--memory: expected a kernel that lets /proc/self/clear_refs reset the peak");
        }
        const std::int64_t before = services::ResidentMemoryBytes();
        MASKKV_ASSIGN_OR_RETURN(
            const PrefilledPrompt prefilled,
            PrefillPrompt(*host_, prompt, gen_length_, Plan(way.selection, way.rule)));
        memory.push_back(
            {{"prompt_tokens", tokens},
             {"prefill", way.name},
             {"peak_bytes", std::max<std::int64_t>(0, services::PeakMemoryBytes() - before)},
             {"full_kv_bytes", prefilled.result.peak_full_kv_bytes},
             {"entry_bytes", prefilled.entry->bytes()}});
      }
    }
    return absl::OkStatus();
  }

  void Report(Json memory) const {
    Json rows = Json::array();
    for (const Case& item : cases_) {
      const double median = Median(item.step_seconds);
      const bool caches = item.response.every > 1;
      rows.push_back({{"prompt_tokens", item.prompt_tokens},
                      {"cache", item.cache},
                      {"response_every", caches ? Json(item.response.every) : Json(nullptr)},
                      {"response_share", caches ? Json(item.response.share) : Json(nullptr)},
                      {"response_cache_bytes", item.response_cache_bytes},
                      {"prefill_ms", item.prefill_seconds * 1e3},
                      {"steps", item.step_seconds.size()},
                      {"step_ms_median", median * 1e3},
                      {"step_ms_mean", Mean(item.step_seconds) * 1e3},
                      {"step_ms_min",
                       *std::min_element(item.step_seconds.begin(), item.step_seconds.end()) * 1e3},
                      {"tokens_per_second", static_cast<double>(batch_) / median},
                      {"entry_bytes", item.entry_bytes},
                      {"shares", OpsJson(item.ops)}});
    }
    if (json_) {
      const Json report = {{"model", host_->directory()},
                           {"dtype", model_.dtype},
                           {"kv_dtype", kernels::Name(model_.pairs())},
                           {"threads", host_->threads()},
                           {"batch", batch_},
                           {"budget", budget_},
                           {"gen_length", gen_length_},
                           {"cases", std::move(rows)},
                           {"memory", std::move(memory)}};
      PrintJson(report);
      return;
    }
    std::printf("%8s %-7s %8s %12s %12s %12s %10s %12s  %s\n", "prompt", "cache", "response",
                "prefill ms", "median ms", "mean ms", "tokens/s", "entry KiB",
                "gemm / attention / head share");
    for (const Json& row : rows) {
      const Json& shares = row["shares"];
      const std::string response =
          row["response_every"].is_null()
              ? "off"
              : row["response_every"].dump() + ":" + row["response_share"].dump();
      std::printf("%8lld %-7s %8s %12.1f %12.3f %12.3f %10.1f %12.1f  %.2f / %.2f / %.2f\n",
                  row["prompt_tokens"].get<long long>(), row["cache"].get<std::string>().c_str(),
                  response.c_str(), row["prefill_ms"].get<double>(),
                  row["step_ms_median"].get<double>(), row["step_ms_mean"].get<double>(),
                  row["tokens_per_second"].get<double>(), row["entry_bytes"].get<double>() / 1024,
                  shares["gemm"].get<double>(), shares["attention"].get<double>(),
                  shares["head"].get<double>());
    }
    for (const Json& row : memory) {
      std::printf(
          "%8lld %-7s peak %.1f MiB above the model, full K and V %.1f MiB, entry %.1f MiB\n",
          row["prompt_tokens"].get<long long>(), row["prefill"].get<std::string>().c_str(),
          row["peak_bytes"].get<double>() / (1 << 20),
          row["full_kv_bytes"].get<double>() / (1 << 20),
          row["entry_bytes"].get<double>() / (1 << 20));
    }
  }

  ModelFlags model_;
  std::vector<std::int64_t> prompt_lengths_{256, 1024, 4096};
  std::vector<std::string> caches_{"maskkv", "none"};
  std::vector<std::string> response_caches_;
  std::int64_t budget_ = 128;
  std::int64_t gen_length_ = 32;
  std::int64_t steps_ = 16;
  std::int64_t none_steps_ = 3;
  int batch_ = 1;
  std::uint64_t seed_ = 0;
  bool memory_ = false;
  bool json_ = false;

  std::unique_ptr<ModelHost> host_;
  std::int64_t max_positions_ = 0;
  std::vector<Case> cases_;
};

}  // namespace

std::unique_ptr<Command> MakeBenchCommand(CLI::App& app) {
  return std::make_unique<BenchCommand>(app);
}

}  // namespace maskkv::cli
