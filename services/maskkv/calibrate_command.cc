// SPDX-License-Identifier: Apache-2.0
//
// maskkv calibrate: measures layer importance (equation 8) over a set of prompts and writes the
// profile that offline layer budgets are cut from; with --quality, what budgets cost on them.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/model/utf8.h"
#include "core/policy/importance.h"
#include "core/policy/profile.h"
#include "services/common/prompt_text.h"
#include "services/maskkv/command.h"
#include "services/maskkv/flag_checks.h"
#include "services/maskkv/generation.h"
#include "services/maskkv/progress.h"
#include "services/maskkv/quality_run.h"
#include "services/maskkv/questions.h"
#include "services/maskkv/rope_flags.h"

namespace maskkv::cli {
namespace {

constexpr const char* kCalibrateExamples = R"(Examples:
  maskkv calibrate --model models/tiny-llada --prompts models/tiny-llada/calibration.jsonl
  maskkv calibrate --model DIR --prompts mine.jsonl --samples 64 --output my_profile.json
  maskkv calibrate --model DIR --prompts mine.jsonl --quality --budgets 16,32,64 --agreement 0.99)";

class CalibrateCommand final : public Command {
 public:
  explicit CalibrateCommand(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("calibrate", "Measure layer importance into a profile");
    sub->footer(std::string(kCalibrateExamples) + "\n\n" + kExitCodesHelp);
    model_.Declare(*sub);
    sub->add_option("--prompts", prompts_, "JSON lines with document and question")
        ->required()
        ->type_name("FILE");
    sub->add_option("--samples", samples_, "Prompts to use; 0 is all")
        ->check(IntegerIn(0, kLargestCount))
        ->capture_default_str();
    sub->add_option("--gen-length", gen_length_, "Masks after each prompt")
        ->check(IntegerIn(1, 1 << 16))
        ->capture_default_str();
    rope_.Declare(*sub);
    quality_.Declare(*sub);
    sub->add_option("--output", output_,
                    "Profile [maskkv_profile.json in the model; maskkv_quality.json of --quality]")
        ->type_name("FILE");
  }

  absl::Status Run() override {
    MASKKV_ASSIGN_OR_RETURN(const std::vector<Question> questions,
                            ReadQuestions(prompts_, samples_, /*need_answers=*/false));
    MASKKV_ASSIGN_OR_RETURN(const std::unique_ptr<ModelHost> host, ModelHost::Load(model_));
    const std::string path = OutputPath(*host);
    MASKKV_RETURN_IF_ERROR(CheckFolder(path));
    std::vector<std::vector<std::int32_t>> prompts;
    std::size_t longest = 0;
    for (const Question& question : questions) {
      MASKKV_ASSIGN_OR_RETURN(
          std::vector<std::int32_t> prompt,
          host->ChatPrompt(services::DocumentAndQuestion(question.document, question.question)));
      longest = std::max(longest, prompt.size());
      prompts.push_back(std::move(prompt));
    }
    MASKKV_RETURN_IF_ERROR(host->Prepare(static_cast<std::int64_t>(longest) + gen_length_,
                                         /*all_layers=*/quality_.quality));

    if (quality_.quality) return Quality(*host, prompts, path);
    policy::ImportanceAccumulator accumulator(host->config().layers);
    {
      ProgressBar progress("prompts", static_cast<std::int64_t>(prompts.size()));
      for (const std::vector<std::int32_t>& prompt : prompts) {
        MASKKV_RETURN_IF_ERROR(AddSample(*host, prompt, accumulator));
        progress.Advance();
      }
    }
    const policy::ImportanceProfile profile{
        .model_fingerprint = host->checkpoint().Fingerprint(),
        .samples = accumulator.samples(),
        .tokens = accumulator.tokens(),
        .importance = accumulator.Mean(),
        .creation = {.data = NameOfData(), .masks = gen_length_, .dtype = model_.dtype}};
    MASKKV_RETURN_IF_ERROR(policy::SaveProfile(profile, path));
    Print(profile, path);
    return absl::OkStatus();
  }

 private:
  // Where the result goes.
  std::string OutputPath(const ModelHost& host) const {
    if (!output_.empty()) return output_;
    return host.directory() + "/" +
           std::string(quality_.quality ? budget::kQualityFileName : policy::kProfileFileName);
  }

  absl::Status Quality(ModelHost& host, const std::vector<std::vector<std::int32_t>>& prompts,
                       const std::string& path) const {
    MASKKV_ASSIGN_OR_RETURN(const budget::QualityCurve curve,
                            MeasureQuality(host, prompts, gen_length_, quality_, rope_));
    MASKKV_RETURN_IF_ERROR(budget::SaveQualityCurve(curve, path));
    PrintQuality(curve, path, quality_);
    return absl::OkStatus();
  }

  // Before minutes of measuring, whether the result will have a place.
  static absl::Status CheckFolder(const std::string& path) {
    const std::filesystem::path folder = std::filesystem::path(path).parent_path();
    if (access(folder.empty() ? "." : folder.c_str(), W_OK) == 0) return absl::OkStatus();
    return absl::ErrnoToStatus(
        errno, absl::StrFormat("%s: expected a folder that can be written, found", path));
  }

  // The prompts' file name in what a profile can hold: UTF-8 without control characters.
  std::string NameOfData() const {
    std::string name = std::filesystem::path(prompts_).filename();
    const bool utf8 = !model::FindInvalidUtf8(name);
    std::replace_if(
        name.begin(), name.end(), [utf8](char c) { return c < 0 ? !utf8 : c < ' ' || c == '\x7f'; },
        '?');
    return name;
  }

  absl::Status AddSample(ModelHost& host, const std::vector<std::int32_t>& prompt,
                         policy::ImportanceAccumulator& accumulator) const {
    MASKKV_RETURN_IF_ERROR(engine::ValidatePrompt(host.config(), prompt, gen_length_,
                                                  host.transformer().max_positions()));
    const std::vector<engine::Row> rows =
        engine::PromptThenMasks(prompt, gen_length_, host.config());
    MASKKV_ASSIGN_OR_RETURN(
        const double rope_scale,
        model::ResolveRopeScale(rope_.choice(), host.config(), std::ssize(rows)));
    MASKKV_ASSIGN_OR_RETURN(
        const std::vector<double> importance,
        engine::Prefiller(host.transformer()).MeasureImportance(rows, rope_scale));
    if (Interrupted()) return absl::CancelledError("interrupted");
    return accumulator.Add(importance, static_cast<std::int64_t>(rows.size()));
  }

  static void Print(const policy::ImportanceProfile& profile, const std::string& path) {
    double largest = 0;
    for (const double value : profile.importance) largest = std::max(largest, value);
    for (std::size_t layer = 0; layer < profile.importance.size(); ++layer) {
      const double share = largest > 0 ? profile.importance[layer] / largest : 0;
      std::printf("layer %3zu  %.6f  %s\n", layer, profile.importance[layer],
                  Bar(static_cast<std::int64_t>(share * 1000), 1000, 40).c_str());
    }
    std::printf("%s: %lld samples\n", path.c_str(), static_cast<long long>(profile.samples));
  }

  ModelFlags model_;
  RopeFlags rope_;
  QualityFlags quality_;
  std::string prompts_;
  std::string output_;
  std::int64_t samples_ = 0;
  std::int64_t gen_length_ = 32;
};

}  // namespace

std::unique_ptr<Command> MakeCalibrateCommand(CLI::App& app) {
  return std::make_unique<CalibrateCommand>(app);
}

}  // namespace maskkv::cli
