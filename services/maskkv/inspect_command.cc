// SPDX-License-Identifier: Apache-2.0
//
// maskkv inspect: what each layer and head kept of a prompt, as a text picture or as JSON (which
// `python -m maskkv_tools.plot_kept` draws). Kept positions tell about the prompt: treat the output
// like the prompt itself.
#include <CLI/CLI.hpp>

#include "core/base/status_macros.h"
#include "services/maskkv/command.h"
#include "services/maskkv/flag_checks.h"
#include "services/maskkv/generation.h"
#include "services/maskkv/json_report.h"
#include "services/maskkv/kept_picture.h"
#include "services/maskkv/remote_picture.h"
#include "services/maskkv/rope_flags.h"

namespace maskkv::cli {
namespace {

constexpr const char* kInspectExamples = R"(Examples:
  maskkv inspect --model models/tiny-llada --document letter.txt -q "Where does Ann live?"
  maskkv inspect --model DIR --prompt-ids ids.json --json > kept.json
  maskkv inspect --server 127.0.0.1:50051 --document letter.txt -q "Where does Ann live?")";

class InspectCommand final : public Command {
 public:
  explicit InspectCommand(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("inspect", "Show what each layer and head keeps");
    sub->footer(std::string(kInspectExamples) + "\n\n" + kExitCodesHelp);
    model_.Declare(*sub);
    sub->get_option("--model")->required(false);
    CLI::Option* const server = sub->add_option(
        "--server", server_,
        "Ask the prefill service at HOST:PORT or unix:PATH instead of loading a model");
    server->type_name("ADDR");
    prompt_.Declare(*sub);
    cache_.Declare(*sub);
    rope_.Declare(*sub);
    // What the service decides by itself.
    for (const char* own : {"--model", "--dtype", "--kv-dtype", "--weights-cache", "--threads",
                            "--cpus", "--numa", "--profile"}) {
      server->excludes(sub->get_option(own));
    }
    sub->add_option("--gen-length", gen_length_, "Masks that vote")
        ->check(IntegerIn(1, 1 << 16))
        ->capture_default_str();
    sub->add_flag("--json", json_, "Print one JSON object");
  }

  absl::Status Run() override {
    if (cache_.mode() == CacheMode::kNone) {
      return absl::InvalidArgumentError("cache: expected maskkv, full or random, found none");
    }
    MASKKV_RETURN_IF_ERROR(prompt_.Validate());
    MASKKV_ASSIGN_OR_RETURN(
        const KeptPicture picture,
        server_.empty() ? KeepHere()
                        : AskForPicture(server_, prompt_, gen_length_, cache_, rope_.choice()));
    if (json_) {
      PrintJson(PictureJson(picture));
    } else {
      PrintPicture(picture);
    }
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<KeptPicture> KeepHere() {
    if (model_.model.empty()) {
      return absl::InvalidArgumentError("model: expected --model or --server, found neither");
    }
    MASKKV_ASSIGN_OR_RETURN(const std::unique_ptr<ModelHost> host, ModelHost::Load(model_));
    MASKKV_ASSIGN_OR_RETURN(const std::vector<std::int32_t> prompt, host->Prompt(prompt_));
    const std::int64_t positions = static_cast<std::int64_t>(prompt.size()) + gen_length_;
    MASKKV_ASSIGN_OR_RETURN(const double rope_scale,
                            model::ResolveRopeScale(rope_.choice(), host->config(), positions));
    MASKKV_RETURN_IF_ERROR(host->Prepare(positions, cache_.HoldsAllLayers()));
    MASKKV_ASSIGN_OR_RETURN(const engine::EvictionPlan plan,
                            cache_.Plan(host->checkpoint(), /*seed=*/0));
    MASKKV_ASSIGN_OR_RETURN(const PrefilledPrompt prefilled,
                            PrefillPrompt(*host, prompt, gen_length_, plan, rope_scale));
    KeptPicture picture = PictureOf(prefilled);
    // A model with shifted logits counts the prompt's last token among the rows that vote.
    picture.prompt_tokens = static_cast<std::int64_t>(prompt.size());
    picture.masks = gen_length_;
    return picture;
  }

  std::string server_;  // "" is this process
  ModelFlags model_;
  PromptFlags prompt_;
  CacheFlags cache_;
  RopeFlags rope_;
  std::int64_t gen_length_ = 32;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeInspectCommand(CLI::App& app) {
  return std::make_unique<InspectCommand>(app);
}

}  // namespace maskkv::cli
