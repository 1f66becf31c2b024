// SPDX-License-Identifier: Apache-2.0
//
// maskkv reuse: exact-match accuracy of the later questions about a document, by what is kept of
// the document between questions (reuse_modes.h), with the bytes and the time of each.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <set>
#include <string>
#include <vector>

#include "core/base/status_macros.h"
#include "services/maskkv/command.h"
#include "services/maskkv/common_flags.h"
#include "services/maskkv/flag_checks.h"
#include "services/maskkv/json_report.h"
#include "services/maskkv/model_host.h"
#include "services/maskkv/progress.h"
#include "services/maskkv/questions.h"
#include "services/maskkv/reuse_run.h"

namespace maskkv::cli {
namespace {

constexpr const char* kExamples = R"(Examples:
  maskkv reuse --model models/tiny-llada --questions many.jsonl --gen-length 8 --modes again,all,over,sum:earlier1 --budgets 8,32 --json
  maskkv reuse --model DIR --questions many.jsonl --earlier 4 --modes over@none,union:earlier4,wide:earlier4 --budgets 8
  maskkv reuse --model DIR --questions many.jsonl --generic "What is said in this document?" --modes sum:generic1,sum:none --budgets 8

A mode is again (a new prefill), all (every pair of the document), over (the question votes over the document's
copy) or COMBINATION:VOTERS (what others' votes keep): sum, union, intersection or wide of earlierN, genericN or
none. @first, @generic or @none says which question was in place when the document was computed.)";

std::string ModeError(const std::string& text) {
  const absl::Status status = ParseReuseMode(text).status();
  return status.ok() ? "" : WithoutName("modes", std::string(status.message()));
}

class ReuseCommand final : public Command {
 public:
  explicit ReuseCommand(CLI::App& app) {
    CLI::App* sub =
        app.add_subcommand("reuse", "Measure later questions about one document, by what is kept");
    sub->footer(std::string(kExamples) + "\n\n" + kExitCodesHelp);
    model_.Declare(*sub);
    decode_.Declare(*sub);
    sub->add_option("--questions", questions_,
                    "JSON lines with document, question, answer and kind; questions about one "
                    "document follow each other")
        ->required()
        ->type_name("FILE");
    sub->add_option("--earlier", setup_.earlier,
                    "Questions of each document that were asked before; the others are counted")
        ->check(IntegerIn(1, kLargestCount))
        ->capture_default_str();
    sub->add_option("--generic", setup_.generic, "A generic question; may be given several times")
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    sub->add_option("--modes", modes_, "What to compare (below)")
        ->delimiter(',')
        ->check(CLI::Validator(ModeError, "MODE"))
        ->capture_default_str();
    sub->add_option("--budgets", budgets_, "Budgets of everything that has one")
        ->delimiter(',')
        ->check(IntegerIn(1, kLargestCount))
        ->capture_default_str();
    sub->add_option("--policy", cache_.policy, "Eviction policy, by name (docs/policies.md)")
        ->check(AnyPolicy())
        ->capture_default_str();
    sub->add_option("--profile", cache_.profile, "Importance profile")->type_name("FILE");
    sub->add_flag("--json", json_, "Print one JSON object");
  }

  absl::Status Run() override {
    MASKKV_RETURN_IF_ERROR(decode_.Validate());
    setup_.params = decode_.params();
    MASKKV_ASSIGN_OR_RETURN(std::vector<Question> questions,
                            ReadQuestions(questions_, /*limit=*/0, /*need_answers=*/true));
    const std::vector<DocumentQuestions> documents = ByDocument(std::move(questions));
    MASKKV_ASSIGN_OR_RETURN(const std::unique_ptr<ModelHost> host, ModelHost::Load(model_));
    setup_.params.stop_ids = host->StopIds();
    MASKKV_RETURN_IF_ERROR(MakeCells(*host));
    {
      ProgressBar progress("documents", std::ssize(documents));
      for (const DocumentQuestions& document : documents) {
        MASKKV_RETURN_IF_ERROR(AskAboutDocument(*host, setup_, document, cells_));
        progress.Advance();
      }
    }
    Report(*host, std::ssize(documents));
    return absl::OkStatus();
  }

 private:
  absl::Status MakeCells(const ModelHost& host) {
    std::set<std::string> named;
    for (const std::string& text : modes_) {
      if (!named.insert(text).second) continue;
      MASKKV_ASSIGN_OR_RETURN(const ReuseMode mode, ParseReuseMode(text));
      if (mode.copy == QuestionSource::kGeneric && setup_.generic.empty()) {
        return absl::InvalidArgumentError("generic: expected a question for " + text +
                                          ", found none");
      }
      for (const std::int64_t budget : budgets_) {
        ReuseCell& cell = cells_.emplace_back();
        cell.mode = mode;
        if (!mode.HasBudget()) break;
        cell.budget = cache_.budget = budget;
        MASKKV_ASSIGN_OR_RETURN(cell.plan, cache_.Plan(host.checkpoint(), /*seed=*/0));
      }
    }
    return absl::OkStatus();
  }

  static Json CellJson(const ReuseCell& cell) {
    Json kinds = Json::object();
    for (const auto& [kind, count] : cell.kinds) {
      kinds[kind] = {{"questions", count.first}, {"correct", count.second}};
    }
    const auto asked = static_cast<double>(cell.questions);
    return {{"mode", cell.mode.name},
            {"budget", cell.budget == 0 ? Json(nullptr) : Json(cell.budget)},
            {"questions", cell.questions},
            {"correct", cell.correct},
            {"document_bytes", cell.document_bytes / asked},
            {"question_bytes", cell.question_bytes / asked},
            {"prepare_ms", 1e3 * cell.prepare_seconds / asked},
            {"decode_ms", 1e3 * cell.decode_seconds / asked},
            {"pairs_as_again", cell.pairs_again == 0 ? Json(nullptr)
                                                     : Json(static_cast<double>(cell.pairs_shared) /
                                                            static_cast<double>(cell.pairs_again))},
            {"kinds", std::move(kinds)},
            {"outcomes", cell.outcomes}};
  }

  void Report(const ModelHost& host, std::int64_t documents) const {
    Json cells = Json::array();
    for (const ReuseCell& cell : cells_) cells.push_back(CellJson(cell));
    if (json_) {
      PrintJson({{"model", host.directory()},
                 {"questions", questions_},
                 {"documents", documents},
                 {"earlier", setup_.earlier},
                 {"generic", setup_.generic},
                 {"policy", cache_.policy},
                 {"gen_length", decode_.gen_length},
                 {"dtype", model_.dtype},
                 {"kv_dtype", kernels::Name(model_.pairs())},
                 {"cells", std::move(cells)}});
      return;
    }
    for (const Json& cell : cells) {
      std::printf(
          "%-22s %6s %6.1f %% of %lld, %10.0f bytes a document, %9.0f a question, "
          "%7.1f + %6.1f ms\n",
          cell["mode"].get<std::string>().c_str(),
          cell["budget"].is_null() ? "" : cell["budget"].dump().c_str(),
          100 * cell["correct"].get<double>() / cell["questions"].get<double>(),
          cell["questions"].get<long long>(), cell["document_bytes"].get<double>(),
          cell["question_bytes"].get<double>(), cell["prepare_ms"].get<double>(),
          cell["decode_ms"].get<double>());
    }
  }

  ModelFlags model_;
  DecodeFlags decode_;
  CacheFlags cache_ = [] {
    CacheFlags flags;
    flags.policy = "maskkv";
    return flags;
  }();
  ReuseSetup setup_;
  std::string questions_;
  std::vector<std::string> modes_{"again", "all", "over", "sum:earlier1"};
  std::vector<std::int64_t> budgets_{4, 8, 16, 32};
  bool json_ = false;
  std::vector<ReuseCell> cells_;
};

}  // namespace

std::unique_ptr<Command> MakeReuseCommand(CLI::App& app) {
  return std::make_unique<ReuseCommand>(app);
}

}  // namespace maskkv::cli
