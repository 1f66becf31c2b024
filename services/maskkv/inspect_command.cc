// SPDX-License-Identifier: Apache-2.0
//
// maskkv inspect: what each layer and head kept of a prompt, as a text picture or as JSON (which
// `python -m maskkv_tools.plot_kept` draws). Kept positions tell about the prompt: treat the output
// like the prompt itself.
#include <cstdio>
#include <numeric>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "services/maskkv/command.h"
#include "services/maskkv/flag_checks.h"
#include "services/maskkv/generation.h"
#include "services/maskkv/json_report.h"
#include "services/maskkv/progress.h"

namespace maskkv::cli {
namespace {

constexpr const char* kExamples = R"(Examples:
  maskkv inspect --model models/tiny-llada --document letter.txt -q "Where does Ann live?"
  maskkv inspect --model DIR --prompt-ids ids.json --json > kept.json)";

constexpr int kColumns = 64;

// Where a head's kept positions lie: one cell for each 1/kColumns of the prompt, darker with the
// share of its positions that are kept.
std::string PositionMap(std::span<const std::int32_t> positions, std::int64_t prompt_tokens) {
  static constexpr const char* kShades[] = {" ", "░", "▒", "▓", "█"};
  std::vector<std::int64_t> kept(kColumns), all(kColumns);
  for (std::int64_t i = 0; i < prompt_tokens; ++i) {
    ++all[static_cast<std::size_t>(i * kColumns / prompt_tokens)];
  }
  for (const std::int32_t position : positions) {
    ++kept[static_cast<std::size_t>(position * kColumns / prompt_tokens)];
  }
  std::string map;
  for (std::size_t cell = 0; cell < kColumns; ++cell) {
    // Any kept position shows; the darkest shade is a cell kept whole.
    const std::size_t shade =
        kept[cell] == 0
            ? 0
            : static_cast<std::size_t>(std::min<std::int64_t>(4, 1 + kept[cell] * 3 / all[cell]));
    map += kShades[shade];
  }
  return map;
}

class InspectCommand final : public Command {
 public:
  explicit InspectCommand(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("inspect", "Show what each layer and head keeps");
    sub->footer(std::string(kExamples) + "\n\n" + kExitCodesHelp);
    model_.Declare(*sub);
    prompt_.Declare(*sub);
    cache_.Declare(*sub);
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
    MASKKV_ASSIGN_OR_RETURN(const std::unique_ptr<ModelHost> host, ModelHost::Load(model_));
    MASKKV_ASSIGN_OR_RETURN(const std::vector<std::int32_t> prompt, host->Prompt(prompt_));
    MASKKV_RETURN_IF_ERROR(host->Prepare(static_cast<std::int64_t>(prompt.size()) + gen_length_,
                                         cache_.HoldsAllLayers()));
    MASKKV_ASSIGN_OR_RETURN(const engine::EvictionPlan plan,
                            cache_.Plan(host->checkpoint(), /*seed=*/0));
    MASKKV_ASSIGN_OR_RETURN(const PrefilledPrompt prefilled,
                            PrefillPrompt(*host, prompt, gen_length_, plan));
    if (json_) {
      PrintJson(Report(prefilled));
    } else {
      PrintPicture(prefilled);
    }
    return absl::OkStatus();
  }

 private:
  static Json Report(const PrefilledPrompt& prefilled) {
    Json report = KeptJson(prefilled.result);
    report["prompt_tokens"] = prefilled.result.prompt_tokens;
    report["masks"] = prefilled.result.masks;
    Json preference = Json::array(), positions = Json::array();
    const engine::EntryShape& shape = prefilled.entry->shape();
    for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
      preference.push_back(prefilled.result.layers[static_cast<std::size_t>(layer)].preference);
      Json heads = Json::array();
      for (std::int64_t head = 0; head < shape.kv_heads; ++head) {
        const auto kept = prefilled.entry->Positions(layer, head);
        heads.push_back(std::vector<std::int32_t>(kept.begin(), kept.end()));
      }
      positions.push_back(std::move(heads));
    }
    report["preference"] = std::move(preference);
    report["positions"] = std::move(positions);
    return report;
  }

  static void PrintPicture(const PrefilledPrompt& prefilled) {
    const engine::PrefillResult& result = prefilled.result;
    const std::int64_t all =
        result.prompt_tokens * prefilled.entry->shape().layers * prefilled.entry->shape().kv_heads;
    std::printf(
        "%lld of %lld pairs kept (%.2f %%), %.1f %% of the mask-query score mass, %lld bytes\n",
        static_cast<long long>(result.pairs()), static_cast<long long>(all),
        all > 0 ? 100.0 * static_cast<double>(result.pairs()) / static_cast<double>(all) : 0.0,
        100 * result.kept_mass(), static_cast<long long>(prefilled.entry->bytes()));
    std::printf("layer head  pairs  prefers prompt  kept positions, first to last of the prompt\n");
    for (std::size_t layer = 0; layer < result.layers.size(); ++layer) {
      const engine::LayerReport& report = result.layers[layer];
      for (std::size_t head = 0; head < report.pairs.size(); ++head) {
        std::printf("%5zu %4zu %6lld  %.3f %-8s |%s|\n", layer, head,
                    static_cast<long long>(report.pairs[head]), report.preference[head],
                    Bar(static_cast<std::int64_t>(report.preference[head] * 1000), 1000, 8).c_str(),
                    PositionMap(prefilled.entry->Positions(static_cast<std::int64_t>(layer),
                                                           static_cast<std::int64_t>(head)),
                                result.prompt_tokens)
                        .c_str());
      }
    }
  }

  ModelFlags model_;
  PromptFlags prompt_;
  CacheFlags cache_;
  std::int64_t gen_length_ = 32;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeInspectCommand(CLI::App& app) {
  return std::make_unique<InspectCommand>(app);
}

}  // namespace maskkv::cli
