// SPDX-License-Identifier: Apache-2.0
//
// maskkv evaluate: exact-match accuracy over a file of questions, for several caches or policies
// and budgets side by side. Every configuration answers the same questions: one forward over a
// prompt serves all cached ones, and all answers are decoded in one batch.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/engine/prompt.h"
#include "core/policy/named_policy.h"
#include "services/common/prompt_text.h"
#include "services/maskkv/command.h"
#include "services/maskkv/flag_checks.h"
#include "services/maskkv/generation.h"
#include "services/maskkv/json_report.h"
#include "services/maskkv/progress.h"
#include "services/maskkv/questions.h"
#include "services/maskkv/refresh_flags.h"

namespace maskkv::cli {
namespace {

constexpr const char* kExamples = R"(Examples:
  maskkv evaluate --model models/tiny-llada --questions test.jsonl --caches none,full,maskkv,random --budgets 8,32,128 --json
  maskkv evaluate --model DIR --questions test.jsonl --policies full,maskkv,snapkv,adakv --budgets 4,8 --json
  python -m maskkv_tools.accuracy_table result.json   draws the table)";

// One configuration and its counts by kind of question.
struct Cell {
  CacheFlags flags;
  engine::EvictionPlan plan;  // unused without a cache
  struct Count {
    std::int64_t questions = 0;
    std::int64_t correct = 0;
  };
  std::map<std::string, Count> by_kind;
  double mass = 0;  // sum of kept mass over questions
  std::int64_t refreshes = 0;
  std::string outcomes;  // a question each: '1' if the answer was correct, else '0'

  bool HasBudget() const {
    return flags.mode() == CacheMode::kMaskKv || flags.mode() == CacheMode::kRandom;
  }
};

// White space at the ends of an answer does not count.
std::string Trimmed(const std::string& text) {
  return std::string(absl::StripAsciiWhitespace(absl::string_view(text.data(), text.size())));
}

class EvaluateCommand final : public Command {
 public:
  explicit EvaluateCommand(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("evaluate", "Measure accuracy by cache and budget");
    sub->footer(std::string(kExamples) + "\n\n" + kExitCodesHelp);
    model_.Declare(*sub);
    decode_.Declare(*sub);
    sub->add_option("--questions", questions_,
                    "JSON lines with document, question, answer and kind")
        ->required()
        ->type_name("FILE");
    sub->add_option("--limit", limit_, "Questions to ask; 0 is all")
        ->check(IntegerIn(0, kLargestCount))
        ->capture_default_str();
    sub->add_option("--caches", caches_, "Which caches to compare [all four, without --policies]")
        ->delimiter(',')
        ->check(OneOf({"none", "full", "maskkv", "random"}));
    sub->add_option("--policies", policies_,
                    "Which eviction policies to compare, by name (docs/policies.md); then only the "
                    "caches that --caches names")
        ->delimiter(',')
        ->check(AnyPolicy());
    sub->add_option("--budgets", budgets_, "Budgets of everything that has one")
        ->delimiter(',')
        ->check(IntegerIn(1, kLargestCount))
        ->capture_default_str();
    sub->add_option("--layers", base_.layers, "Layer budgets: offline, online, uniform")
        ->check(OneOf({"offline", "online", "uniform"}))
        ->capture_default_str();
    sub->add_option("--alpha", base_.alpha, "Base rate of head budgets")
        ->check(NumberIn(0, 1))
        ->capture_default_str();
    sub->add_option("--beta", base_.beta, "Base rate of layer budgets")
        ->check(NumberIn(0, 1))
        ->capture_default_str();
    sub->add_option("--profile", base_.profile, "Importance profile")->type_name("FILE");
    refresh_.Declare(*sub);
    sub->add_flag("--json", json_, "Print one JSON object");
  }

  absl::Status Run() override {
    MASKKV_RETURN_IF_ERROR(decode_.Validate());
    params_ = decode_.params();
    MASKKV_ASSIGN_OR_RETURN(const std::vector<Question> questions,
                            ReadQuestions(questions_, limit_, /*need_answers=*/true));
    MASKKV_ASSIGN_OR_RETURN(host_, ModelHost::Load(model_));
    params_.stop_ids = host_->StopIds();
    MASKKV_RETURN_IF_ERROR(MakeCells());
    std::int64_t tokens = 0;
    {
      ProgressBar progress("questions", static_cast<std::int64_t>(questions.size()));
      for (std::size_t i = 0; i < questions.size(); ++i) {
        MASKKV_ASSIGN_OR_RETURN(const std::int64_t length,
                                Ask(questions[i], static_cast<std::uint64_t>(i)));
        tokens += length;
        progress.Advance();
      }
    }
    Report(static_cast<double>(tokens) / static_cast<double>(questions.size()));
    return absl::OkStatus();
  }

 private:
  bool HoldsAllLayers() const {
    return std::any_of(cells_.begin(), cells_.end(),
                       [](const Cell& cell) { return cell.flags.HoldsAllLayers(); });
  }

  absl::Status MakeCells() {
    if (caches_.empty() && policies_.empty()) caches_ = {"none", "full", "maskkv", "random"};
    for (const std::string& cache : caches_) {
      CacheFlags flags = base_;
      flags.cache = cache;
      MASKKV_RETURN_IF_ERROR(AddCells(flags));
    }
    std::set<std::string> named;
    for (const std::string& name : policies_) {
      MASKKV_ASSIGN_OR_RETURN(const policy::PolicyParts parts, policy::ParsePolicy(name));
      CacheFlags flags = base_;
      flags.policy = policy::PolicyName(parts);
      if (named.insert(flags.policy).second) MASKKV_RETURN_IF_ERROR(AddCells(flags));
    }
    return absl::OkStatus();
  }

  // One cell for each budget, or the only one.
  absl::Status AddCells(CacheFlags flags) {
    const std::size_t first = cells_.size();
    for (const std::int64_t budget : budgets_) {
      flags.budget = budget;
      Cell& cell = cells_.emplace_back();
      cell.flags = flags;
      if (flags.mode() != CacheMode::kNone) {
        MASKKV_ASSIGN_OR_RETURN(cell.plan, flags.Plan(host_->checkpoint(), /*seed=*/0));
      }
      if (!cells_[first].HasBudget()) break;
    }
    return absl::OkStatus();
  }

  // An entry of the prompt for every cached configuration, in their order.
  absl::StatusOr<std::vector<PrefilledPrompt>> Prefill(std::span<const std::int32_t> prompt,
                                                       std::uint64_t question) {
    std::vector<engine::EvictionPlan> plans;
    for (const Cell& cell : cells_) {
      if (cell.flags.mode() == CacheMode::kNone) continue;
      plans.push_back(cell.plan);
      plans.back().random_seed = question;
    }
    return PrefillPromptFor(*host_, prompt, params_.gen_length, plans);
  }

  // Asks every configuration one question. Returns the prompt's length in tokens.
  absl::StatusOr<std::int64_t> Ask(const Question& question, std::uint64_t number) {
    MASKKV_ASSIGN_OR_RETURN(
        const std::vector<std::int32_t> prompt,
        host_->ChatPrompt(services::DocumentAndQuestion(question.document, question.question)));
    const std::int64_t positions = static_cast<std::int64_t>(prompt.size()) + params_.gen_length;
    if (positions > prepared_positions_) {
      MASKKV_RETURN_IF_ERROR(host_->Prepare(positions, HoldsAllLayers()));
      prepared_positions_ = positions;
    }
    MASKKV_ASSIGN_OR_RETURN(const std::vector<PrefilledPrompt> prefilled, Prefill(prompt, number));
    engine::Decoder decoder(host_->transformer());
    std::vector<engine::RequestId> ids;
    auto cached = prefilled.begin();
    for (Cell& cell : cells_) {
      engine::DecodeRequest request;
      request.prompt_tokens = static_cast<std::int64_t>(prompt.size());
      request.params = params_;
      if (cell.flags.mode() == CacheMode::kNone) {
        request.prompt = prompt;
        cell.mass += 1;
      } else {
        cell.mass += cached->result.kept_mass();
        refresh_.Apply(request.params);
        request.prompt = engine::RecomputedTail(host_->config(), prompt);
        request.cache = (cached++)->entry;
      }
      MASKKV_ASSIGN_OR_RETURN(const engine::RequestId id, decoder.Add(std::move(request)));
      ids.push_back(id);
    }
    while (decoder.running() > 0) {
      if (Interrupted()) return absl::CancelledError("interrupted");
      for (const engine::StepEvent& event : decoder.Step()) {
        MASKKV_RETURN_IF_ERROR(event.status);
        if (!event.refresh_due) continue;
        const auto cell = std::ranges::find(ids, event.request) - ids.begin();
        MASKKV_RETURN_IF_ERROR(Refresh(cells_[static_cast<std::size_t>(cell)], prompt, number,
                                       event.request, decoder));
      }
    }
    for (std::size_t i = 0; i < cells_.size(); ++i) {
      Cell::Count& count = cells_[i].by_kind[question.kind];
      ++count.questions;
      const std::string answer = Trimmed(host_->Text(decoder.Find(ids[i])->Answer()));
      const bool correct = answer == Trimmed(question.answer);
      count.correct += correct ? 1 : 0;
      cells_[i].outcomes.push_back(correct ? '1' : '0');
    }
    return static_cast<std::int64_t>(prompt.size());
  }

  absl::Status Refresh(Cell& cell, std::span<const std::int32_t> prompt, std::uint64_t question,
                       engine::RequestId id, engine::Decoder& decoder) {
    engine::EvictionPlan plan = cell.plan;
    plan.random_seed = question;
    MASKKV_ASSIGN_OR_RETURN(const PrefilledPrompt fresh,
                            RefreshPrompt(*host_, prompt, decoder.Find(id)->tokens(), plan));
    ++cell.refreshes;
    return decoder.SwapCache(id, fresh.entry);
  }

  void Report(double mean_prompt_tokens) const {
    Json cells = Json::array();
    for (const Cell& cell : cells_) {
      Json kinds = Json::object();
      std::int64_t questions = 0, correct = 0;
      for (const auto& [kind, count] : cell.by_kind) {
        kinds[kind] = {{"questions", count.questions}, {"correct", count.correct}};
        questions += count.questions;
        correct += count.correct;
      }
      const bool none = cell.flags.mode() == CacheMode::kNone;
      cells.push_back(
          {{"cache", cell.flags.policy.empty() ? cell.flags.cache : "policy"},
           {"policy", none ? Json(nullptr) : Json(policy::PolicyName(cell.plan.Parts()))},
           {"budget", cell.HasBudget() ? Json(cell.flags.budget) : Json(nullptr)},
           {"questions", questions},
           {"correct", correct},
           {"kept_mass", cell.mass / static_cast<double>(questions)},
           {"refreshes", cell.refreshes},
           {"kinds", std::move(kinds)},
           {"outcomes", cell.outcomes}});
    }
    if (json_) {
      const Json report = {{"model", host_->directory()},
                           {"questions", questions_},
                           {"gen_length", params_.gen_length},
                           {"block_length", params_.block_length},
                           {"steps", params_.steps},
                           {"temperature", params_.temperature},
                           {"dtype", model_.dtype},
                           {"layers", base_.layers},
                           {"alpha", base_.alpha},
                           {"beta", base_.beta},
                           {"refresh_every", refresh_.every},
                           {"refresh_floor", refresh_.floor},
                           {"mean_prompt_tokens", mean_prompt_tokens},
                           {"cells", std::move(cells)}};
      PrintJson(report);
      return;
    }
    for (const Json& cell : cells) {
      const Json& name = cell[cell["cache"] == "policy" ? "policy" : "cache"];
      std::printf("%-7s %6s  %5.1f %% of %lld, kept mass %.3f ", name.get<std::string>().c_str(),
                  cell["budget"].is_null() ? "" : cell["budget"].dump().c_str(),
                  100 * cell["correct"].get<double>() / cell["questions"].get<double>(),
                  cell["questions"].get<long long>(), cell["kept_mass"].get<double>());
      for (const auto& [kind, count] : cell["kinds"].items()) {
        std::printf(" %s %.3f", kind.c_str(),
                    count["correct"].get<double>() / count["questions"].get<double>());
      }
      std::printf("\n");
    }
  }

  ModelFlags model_;
  DecodeFlags decode_;
  CacheFlags base_;
  RefreshFlags refresh_;
  std::string questions_;
  std::int64_t limit_ = 0;
  std::vector<std::string> caches_;
  std::vector<std::string> policies_;
  std::vector<std::int64_t> budgets_{8, 16, 32, 64, 128};
  bool json_ = false;

  engine::GenerateParams params_;
  std::unique_ptr<ModelHost> host_;
  std::int64_t prepared_positions_ = 0;
  std::vector<Cell> cells_;
};

}  // namespace

std::unique_ptr<Command> MakeEvaluateCommand(CLI::App& app) {
  return std::make_unique<EvaluateCommand>(app);
}

}  // namespace maskkv::cli
