// SPDX-License-Identifier: Apache-2.0
//
// maskkv generate: one prompt, one answer, streamed; --json prints one object instead, whose schema
// is docs/generate.schema.json.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <numeric>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/decoding/guidance.h"
#include "core/engine/constraint.h"
#include "services/maskkv/automaton_flags.h"
#include "services/maskkv/command.h"
#include "services/maskkv/flag_checks.h"
#include "services/maskkv/generation.h"
#include "services/maskkv/infill_flags.h"
#include "services/maskkv/json_report.h"
#include "services/maskkv/live_view.h"
#include "services/maskkv/refresh_flags.h"
#include "services/maskkv/response_flags.h"
#include "services/maskkv/rope_flags.h"

namespace maskkv::cli {
namespace {

constexpr const char* kGenerateExamples = R"(Examples:
  maskkv generate --model models/tiny-llada --document letter.txt -q "Where does Ann live?"
  cat book.txt | maskkv generate --model DIR --document - -q "Who did it?" --budget 128 --json
  maskkv generate --model DIR --prompt-ids ids.json --cache none --gen-length 64 --steps 32
  maskkv generate --model DIR --document letter.txt -q "Who?" --rule threshold --threshold 0.95
  maskkv generate --model DIR --infill letter_with_gaps.txt
  maskkv generate --model DIR --document letter.txt -q "Who?" --infill-text "It was [[3]] in [[2]]."
  maskkv generate --model DIR --document letter.txt -q "Who?" --rule entropy --top-p 0.9 --temperature 0.5
  maskkv generate --model DIR --document letter.txt -q "Who?" --automaton name.json)";

class GenerateCommand final : public Command {
 public:
  explicit GenerateCommand(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("generate", "Answer a question about a document");
    sub->footer(std::string(kGenerateExamples) + "\n\n" + kExitCodesHelp);
    model_.Declare(*sub);
    prompt_.Declare(*sub);
    decode_.Declare(*sub);
    cache_.Declare(*sub);
    rope_.Declare(*sub);
    refresh_.Declare(*sub);
    infill_.Declare(*sub);
    response_.Declare(*sub);
    automaton_.Declare(*sub);
    sub->add_option("--cfg-scale", cfg_scale_,
                    "Classifier-free guidance away from what a masked prompt predicts; 0: none, "
                    "else twice the rows")
        ->check(NumberIn(0, decoding::kMostGuidance))
        ->capture_default_str();
    sub->add_flag("--json", json_, "Print one JSON object instead of the text");
  }

  absl::Status Run() override {
    if (!infill_.given()) {
      MASKKV_RETURN_IF_ERROR(decode_.Validate());
      MASKKV_RETURN_IF_ERROR(prompt_.Validate());
    }
    MASKKV_ASSIGN_OR_RETURN(const std::unique_ptr<ModelHost> host, ModelHost::Load(model_));
    if (!json_ && host->tokenizer() == nullptr) {
      return absl::FailedPreconditionError(absl::StrFormat(
          "%s/tokenizer.json: expected a tokenizer for a text answer, found none: use --json",
          host->directory()));
    }
    InfillFlags::Asked asked;
    if (infill_.given()) {
      MASKKV_ASSIGN_OR_RETURN(asked, infill_.Read(*host, prompt_));
      decode_.gen_length = std::ssize(asked.infill.canvas);
      if (decode_.block_length == 0) decode_.block_length = decode_.gen_length;
      MASKKV_RETURN_IF_ERROR(decode_.Validate());
    } else {
      MASKKV_ASSIGN_OR_RETURN(asked.prompt, host->Prompt(prompt_));
    }
    const std::vector<std::int32_t>& prompt = asked.prompt;
    engine::GenerateParams params = decode_.params();
    refresh_.Apply(params);
    response_.Apply(params);
    MASKKV_RETURN_IF_ERROR(automaton_.Apply(params));
    params.cfg_scale = cfg_scale_;
    params.stop_ids = host->StopIds();
    params.whole_canvas = infill_.given();
    MASKKV_RETURN_IF_ERROR(engine::Validate(params));
    MASKKV_RETURN_IF_ERROR(engine::CheckAutomaton(params, host->config().mask_id,
                                                  host->config().vocab_rows, asked.infill.canvas));
    const std::int64_t tokens = std::ssize(prompt) + std::ssize(asked.infill.suffix);
    MASKKV_ASSIGN_OR_RETURN(
        const double rope_scale,
        model::ResolveRopeScale(rope_.choice(), host->config(), tokens + params.gen_length));
    MASKKV_RETURN_IF_ERROR(host->Prepare(tokens + params.longest(), cache_.HoldsAllLayers()));
    std::optional<engine::EvictionPlan> plan;
    if (cache_.mode() != CacheMode::kNone) {
      MASKKV_ASSIGN_OR_RETURN(plan, cache_.Plan(host->checkpoint(), params.seed));
    }

    LiveView view(*host, stdout);
    MASKKV_ASSIGN_OR_RETURN(const Generation generation,
                            Generate(
                                *host, prompt, params, plan,
                                [&](const engine::StepEvent&, const engine::Canvas& now) {
                                  if (!json_) view.Show(now);
                                },
                                rope_scale, asked.infill));
    if (json_) {
      Json json = GenerationJson(*host, prompt, generation);
      if (infill_.given()) AddInfillJson(*host, asked.infill, json);
      PrintJson(json);
      return absl::OkStatus();
    }
    const double seconds =
        std::accumulate(generation.step_seconds.begin(), generation.step_seconds.end(), 0.0);
    view.Finish(static_cast<double>(generation.tokens.size()) / seconds);
    return absl::OkStatus();
  }

 private:
  ModelFlags model_;
  PromptFlags prompt_;
  DecodeFlags decode_;
  CacheFlags cache_;
  RopeFlags rope_;
  RefreshFlags refresh_;
  InfillFlags infill_;
  ResponseFlags response_;
  AutomatonFlags automaton_;
  double cfg_scale_ = 0;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeGenerateCommand(CLI::App& app) {
  return std::make_unique<GenerateCommand>(app);
}

}  // namespace maskkv::cli
