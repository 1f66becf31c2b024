// SPDX-License-Identifier: Apache-2.0
//
// maskkv inspect-model: what a checkpoint is and what it takes of memory, from its files' headers:
// no weight is read. With config.json alone it says what the weights would take.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/model/checkpoint.h"
#include "core/model/config.h"
#include "core/model/footprint.h"
#include "services/common/memory.h"
#include "services/maskkv/command.h"
#include "services/maskkv/flag_checks.h"
#include "services/maskkv/json_report.h"

namespace maskkv::cli {
namespace {

using kernels::DType;

constexpr const char* kInspectModelExamples = R"(Examples:
  maskkv inspect-model models/tiny-llada
  maskkv inspect-model DIR --prompt-tokens 8192,131072 --budget 512 --json)";

const char* FamilyName(model::ModelFamily family) {
  switch (family) {
    case model::ModelFamily::kLlada:
      return "llada";
    case model::ModelFamily::kDream:
      return "dream";
    case model::ModelFamily::kLladaMoe:
      return "llada-moe";
  }
  return "";
}

// "12.3 GiB", in the largest unit of which it is at least one.
std::string Readable(std::int64_t bytes) {
  constexpr const char* kUnits[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
  return unit == 0 ? absl::StrFormat("%d bytes", bytes)
                   : absl::StrFormat("%.2f %s", value, kUnits[unit]);
}

// Bytes of weights in the files; none if there are no weights beside the configuration.
absl::StatusOr<std::optional<std::int64_t>> WeightBytes(const std::string& directory) {
  for (const std::string_view name :
       {model::Checkpoint::kWeightsFile, model::Checkpoint::kIndexFile}) {
    std::error_code unreadable;  // then opening says so
    if (!std::filesystem::exists(directory + "/" + std::string(name), unreadable) && !unreadable) {
      continue;
    }
    MASKKV_ASSIGN_OR_RETURN(const model::Checkpoint checkpoint, model::Checkpoint::Open(directory));
    return checkpoint.weight_bytes();
  }
  return std::nullopt;
}

class InspectModelCommand final : public Command {
 public:
  explicit InspectModelCommand(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("inspect-model", "Show what a model takes of memory");
    sub->footer(std::string(kInspectModelExamples) + "\n\n" + kExitCodesHelp);
    sub->add_option("model", directory_, "Checkpoint directory, or one with its config.json alone")
        ->required()
        ->type_name("DIR");
    sub->add_option("--prompt-tokens", lengths_, "Lengths of prompts to tell the cache of")
        ->delimiter(',')
        ->check(IntegerIn(1, model::Footprint::kMaxPrompt))
        ->capture_default_str();
    sub->add_option("--budget", budget_, "Pairs that each KV head keeps on average")
        ->check(IntegerIn(1, kLargestCount))
        ->capture_default_str();
    sub->add_option("--gen-length", gen_length_, "Masks that vote, for what fits this machine")
        ->check(IntegerIn(1, 1 << 16))
        ->capture_default_str();
    sub->add_option("--dtype", dtype_, "Type of weights and GEMM inputs")
        ->check(OneOf({"f32", "bf16", "int8"}))
        ->capture_default_str();
    sub->add_option("--kv-dtype", kv_dtype_,
                    "Type of cached pairs: f32, bf16, or int8 with a scale for each [--dtype]")
        ->check(OneOf({"f32", "bf16", "int8"}));
    sub->add_flag("--json", json_, "Print one JSON object");
  }

  absl::Status Run() override {
    MASKKV_ASSIGN_OR_RETURN(
        const model::ModelConfig config,
        model::LoadModelConfig(directory_ + "/" + std::string(model::Checkpoint::kConfigFile)));
    MASKKV_ASSIGN_OR_RETURN(const std::optional<std::int64_t> file_bytes, WeightBytes(directory_));
    const Json report = Report(config, file_bytes);
    if (json_) {
      PrintJson(report);
    } else {
      Print(report);
    }
    return absl::OkStatus();
  }

 private:
  DType dtype() const { return kernels::DTypeNamed(dtype_); }
  DType pair_dtype() const {
    return kv_dtype_.empty() ? kernels::PairDType(dtype()) : kernels::DTypeNamed(kv_dtype_);
  }

  Json Report(const model::ModelConfig& config, std::optional<std::int64_t> file_bytes) const {
    const model::Footprint footprint(config);
    const std::int64_t available = services::AvailableMemoryBytes();
    Json whole = Json::array();
    for (const std::int64_t tokens : lengths_) {
      whole.push_back(
          {{"prompt_tokens", tokens}, {"bytes", footprint.KvBytes(tokens, pair_dtype())}});
    }
    // Null where not even the weights fit.
    const auto largest = [&](std::int64_t pairs) -> Json {
      const std::int64_t tokens =
          footprint.LargestPrompt(available, gen_length_, pairs, {dtype(), pair_dtype()});
      return tokens < 0 ? Json() : Json(tokens);
    };
    return {
        {"model", directory_},
        {"family", FamilyName(config.family)},
        {"model_type", config.model_type},
        {"layers", config.layers},
        {"hidden", config.hidden},
        {"heads", config.heads},
        {"kv_heads", config.kv_heads},
        {"head_dim", config.head_dim},
        {"experts", config.experts},
        {"max_sequence", config.max_sequence},
        {"parameters", footprint.parameters()},
        {"weights",
         {{"file_bytes", file_bytes ? Json(*file_bytes) : Json()},
          {"packed_f32_bytes", footprint.PackedBytes(DType::kF32)},
          {"packed_bf16_bytes", footprint.PackedBytes(DType::kBF16)},
          {"packed_int8_bytes", footprint.PackedBytes(DType::kInt8)}}},
        {"dtype", dtype_},
        {"kv_dtype", kernels::Name(pair_dtype())},
        {"kv_bytes_a_position", footprint.KvBytesAPosition(pair_dtype())},
        {"whole_kv", whole},
        {"budget", {{"pairs", budget_}, {"bytes", footprint.KvBytes(budget_, pair_dtype())}}},
        {"machine",
         {{"available_bytes", available},
          {"gen_length", gen_length_},
          {"largest_prompt_whole", largest(model::Footprint::kMaxPrompt)},
          {"largest_prompt_maskkv", largest(budget_)}}},
    };
  }

  static void Print(const Json& report) {
    const auto line = [](const char* name, const std::string& value) {
      std::printf("%-28s %s\n", name, value.c_str());
    };
    const auto bytes = [](const Json& value) { return Readable(value.get<std::int64_t>()); };
    const Json& weights = report["weights"];
    line("family", report["family"].get<std::string>());
    line("parameters", absl::StrFormat("%d", report["parameters"].get<std::int64_t>()));
    line("weights in files",
         weights["file_bytes"].is_null() ? "none" : bytes(weights["file_bytes"]));
    line("weights packed, f32", bytes(weights["packed_f32_bytes"]));
    line("weights packed, bf16", bytes(weights["packed_bf16_bytes"]));
    line("weights packed, int8", bytes(weights["packed_int8_bytes"]));
    line("K and V in", report["kv_dtype"].get<std::string>());
    line("  a position", bytes(report["kv_bytes_a_position"]));
    for (const Json& length : report["whole_kv"]) {
      line(absl::StrFormat("  %d tokens", length["prompt_tokens"].get<std::int64_t>()).c_str(),
           bytes(length["bytes"]));
    }
    const Json& budget = report["budget"];
    line(absl::StrFormat("  %d pairs a KV head", budget["pairs"].get<std::int64_t>()).c_str(),
         bytes(budget["bytes"]));
    const Json& machine = report["machine"];
    line("memory available", bytes(machine["available_bytes"]));
    const auto prompt = [&](const char* name) {
      const Json& tokens = machine[name];
      return tokens.is_null() ? std::string("none: the weights do not fit")
                              : absl::StrFormat("%d tokens", tokens.get<std::int64_t>());
    };
    line("  largest prompt, whole KV", prompt("largest_prompt_whole"));
    line("  largest prompt, MaskKV", prompt("largest_prompt_maskkv"));
  }

  std::string directory_;
  std::vector<std::int64_t> lengths_ = {4096, 32768};
  std::int64_t budget_ = 256;
  std::int64_t gen_length_ = 32;
  std::string dtype_ = "bf16";
  std::string kv_dtype_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeInspectModelCommand(CLI::App& app) {
  return std::make_unique<InspectModelCommand>(app);
}

}  // namespace maskkv::cli
