// SPDX-License-Identifier: Apache-2.0
//
// maskkv evaluate: exact-match accuracy over a file of questions, for several caches or policies,
// budgets, decoding rules and response caches side by side. Every configuration answers the same
// questions: one forward over a prompt serves all cached ones, and all answers are decoded in one
// batch; or one after the other, where rules are compared, so that each has a time of its own.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <set>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/decoding/rule_spec.h"
#include "core/engine/prompt.h"
#include "core/policy/named_policy.h"
#include "services/common/prompt_text.h"
#include "services/maskkv/command.h"
#include "services/maskkv/evaluation_cell.h"
#include "services/maskkv/evaluation_decode.h"
#include "services/maskkv/flag_checks.h"
#include "services/maskkv/generation.h"
#include "services/maskkv/json_report.h"
#include "services/maskkv/progress.h"
#include "services/maskkv/questions.h"
#include "services/maskkv/refresh_flags.h"
#include "services/maskkv/response_flags.h"

namespace maskkv::cli {
namespace {

constexpr const char* kEvaluateExamples = R"(Examples:
  maskkv evaluate --model models/tiny-llada --questions test.jsonl --caches none,full,maskkv,random --budgets 8,32,128 --json
  maskkv evaluate --model DIR --questions test.jsonl --policies full,maskkv,snapkv,adakv --budgets 4,8 --json
  maskkv evaluate --model DIR --questions test.jsonl --caches full,maskkv --budgets 32 --rules low_confidence,threshold:0.9,factor:1 --json
  python -m maskkv_tools.accuracy_table result.json   draws the table)";

class EvaluateCommand final : public Command {
 public:
  explicit EvaluateCommand(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("evaluate", "Measure accuracy by cache and budget");
    sub->footer(std::string(kEvaluateExamples) + "\n\n" + kExitCodesHelp);
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
    sub->add_option("--rules", rules_,
                    "Which decoding rules to compare, each with its parameters: threshold:0.9; "
                    "timed one by one")
        ->delimiter(',')
        ->check(AnyRule())
        ->excludes(sub->get_option("--rule"));
    sub->add_option("--schedules", schedules_,
                    "Several numbers of steps for those of --rules that go by them")
        ->delimiter(',')
        ->check(IntegerIn(1, kLargestCount))
        ->needs(sub->get_option("--rules"))
        ->excludes(sub->get_option("--steps"));
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
    response_.Declare(*sub);
    DeclareResponseCaches(*sub, response_caches_)
        ->excludes(sub->get_option("--response-every"))
        ->excludes(sub->get_option("--response-share"));
    sub->add_flag("--json", json_, "Print one JSON object");
  }

  absl::Status Run() override {
    MASKKV_RETURN_IF_ERROR(MakeParams());
    MASKKV_ASSIGN_OR_RETURN(const std::vector<Question> questions,
                            ReadQuestions(questions_, limit_, /*need_answers=*/true));
    MASKKV_ASSIGN_OR_RETURN(host_, ModelHost::Load(model_));
    for (engine::GenerateParams& params : params_) params.stop_ids = host_->StopIds();
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
    return std::any_of(kept_.begin(), kept_.end(),
                       [](const KeptPrompt& kept) { return kept.flags.HoldsAllLayers(); });
  }

  // Ways of decoding are compared: each cell is decoded and timed alone.
  bool timed() const { return !rules_.empty() || !response_caches_.empty(); }

  // One set of parameters for each rule and response cache; stop_ids stay empty.
  absl::Status MakeParams() {
    MASKKV_RETURN_IF_ERROR(MakeRules());
    std::vector<ResponseFlags> caches = ResponseCaches(response_caches_);
    if (caches.empty()) caches.push_back(response_);
    std::vector<engine::GenerateParams> crossed;
    for (const engine::GenerateParams& params : params_) {
      for (const ResponseFlags& cache : caches) cache.Apply(crossed.emplace_back(params));
    }
    params_ = std::move(crossed);
    return absl::OkStatus();
  }

  // One set of parameters for each rule.
  absl::Status MakeRules() {
    if (rules_.empty()) {
      MASKKV_RETURN_IF_ERROR(decode_.Validate());
      params_.push_back(decode_.params());
      return absl::OkStatus();
    }
    if (schedules_.empty()) schedules_.push_back(decode_.steps);
    std::set<std::pair<std::string, std::int64_t>> named;
    bool scheduled = false;
    for (const std::string& text : rules_) {
      MASKKV_ASSIGN_OR_RETURN(const decoding::RuleParams rule,
                              decoding::ParseRuleSpec(text, decode_.rule.base()));
      scheduled = scheduled || decoding::IsScheduled(rule.rule);
      for (const std::int64_t steps : schedules_) {
        DecodeFlags flags = decode_;
        flags.steps = decoding::IsScheduled(rule.rule) ? steps : 0;
        if (!named.insert({decoding::RuleSpec(rule), flags.steps}).second) continue;
        MASKKV_RETURN_IF_ERROR(flags.Validate(rule));
        params_.push_back(flags.params(rule));
      }
    }
    return scheduled ? absl::OkStatus()
                     : engine::CheckStepsAreRead(params_.front().rule.rule, schedules_.front());
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

  // One cell for each budget, or the only one, and way of decoding.
  absl::Status AddCells(CacheFlags flags) {
    for (const std::int64_t budget : budgets_) {
      flags.budget = budget;
      KeptPrompt& kept = kept_.emplace_back();
      kept.flags = flags;
      if (kept.HasCache()) {
        MASKKV_ASSIGN_OR_RETURN(kept.plan, flags.Plan(host_->checkpoint(), /*seed=*/0));
      }
      for (const engine::GenerateParams& params : params_) {
        Cell& cell = cells_.emplace_back();
        cell.kept = kept_.size() - 1;
        cell.params = params;
        if (kept.HasCache()) refresh_.Apply(cell.params);
      }
      if (!kept.HasBudget()) break;
    }
    return absl::OkStatus();
  }

  // An entry of the prompt for each of kept_, null without a cache.
  absl::StatusOr<std::vector<std::shared_ptr<const engine::KvView>>> Prefill(
      std::span<const std::int32_t> prompt, std::uint64_t question) {
    std::vector<engine::EvictionPlan> plans;
    for (const KeptPrompt& kept : kept_) {
      if (!kept.HasCache()) continue;
      plans.push_back(kept.plan);
      plans.back().random_seed = question;
    }
    MASKKV_ASSIGN_OR_RETURN(const std::vector<PrefilledPrompt> prefilled,
                            PrefillPromptFor(*host_, prompt, decode_.gen_length, plans));
    std::vector<std::shared_ptr<const engine::KvView>> entries;
    auto next = prefilled.begin();
    for (KeptPrompt& kept : kept_) {
      kept.mass += kept.HasCache() ? next->result.kept_mass() : 1;
      entries.push_back(kept.HasCache() ? (next++)->entry : nullptr);
    }
    return entries;
  }

  // Asks every configuration one question. Returns the prompt's length in tokens.
  absl::StatusOr<std::int64_t> Ask(const Question& question, std::uint64_t number) {
    MASKKV_ASSIGN_OR_RETURN(
        const std::vector<std::int32_t> prompt,
        host_->ChatPrompt(services::DocumentAndQuestion(question.document, question.question)));
    const std::int64_t positions =
        static_cast<std::int64_t>(prompt.size()) + params_.front().longest();
    if (positions > prepared_positions_) {
      MASKKV_RETURN_IF_ERROR(host_->Prepare(positions, HoldsAllLayers()));
      prepared_positions_ = positions;
    }
    MASKKV_ASSIGN_OR_RETURN(const auto entries, Prefill(prompt, number));
    const AskedQuestion asked{
        .question = question, .number = number, .prompt = prompt, .entries = entries};
    MASKKV_RETURN_IF_ERROR(DecodeCells(*host_, asked, kept_, timed(), cells_));
    return static_cast<std::int64_t>(prompt.size());
  }

  void Report(double mean_prompt_tokens) const {
    Json cells = Json::array();
    for (const Cell& cell : cells_) {
      cells.push_back(CellJson(cell, kept_[cell.kept], timed()));
    }
    if (!json_) {
      for (const Json& cell : cells) PrintCell(cell);
      return;
    }
    PrintJson({{"model", host_->directory()},
               {"questions", questions_},
               {"gen_length", decode_.gen_length},
               {"max_gen_length", params_.front().longest()},
               {"temperature", decode_.temperature},
               {"dtype", model_.dtype},
               {"kv_dtype", kernels::Name(model_.pairs())},
               {"layers", base_.layers},
               {"alpha", base_.alpha},
               {"beta", base_.beta},
               {"refresh_every", refresh_.every},
               {"refresh_floor", refresh_.floor},
               {"mean_prompt_tokens", mean_prompt_tokens},
               {"cells", std::move(cells)}});
  }

  ModelFlags model_;
  DecodeFlags decode_;
  CacheFlags base_;
  RefreshFlags refresh_;
  ResponseFlags response_;
  std::string questions_;
  std::int64_t limit_ = 0;
  std::vector<std::string> caches_;
  std::vector<std::string> policies_;
  std::vector<std::string> rules_;
  std::vector<std::int64_t> schedules_;
  std::vector<std::string> response_caches_;
  std::vector<std::int64_t> budgets_{8, 16, 32, 64, 128};
  bool json_ = false;

  std::vector<engine::GenerateParams> params_;  // a rule and response cache each
  std::unique_ptr<ModelHost> host_;
  std::int64_t prepared_positions_ = 0;
  std::vector<KeptPrompt> kept_;
  std::vector<Cell> cells_;
};

}  // namespace

std::unique_ptr<Command> MakeEvaluateCommand(CLI::App& app) {
  return std::make_unique<EvaluateCommand>(app);
}

}  // namespace maskkv::cli
