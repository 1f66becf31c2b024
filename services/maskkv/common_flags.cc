// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/common_flags.h"

#include <CLI/CLI.hpp>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "core/policy/profile.h"
#include "services/maskkv/flag_checks.h"

namespace maskkv::cli {
namespace {

// Logits differ by tens; from here on every token is as likely as every other.
constexpr double kHottest = 1000;

}  // namespace

void ModelFlags::Declare(CLI::App& app) {
  app.add_option("--model", model,
                 "Checkpoint directory: config.json, *.safetensors, tokenizer.json")
      ->required()
      ->type_name("DIR");
  app.add_option("--dtype", dtype, "Type of weights and GEMM inputs")
      ->check(OneOf({"f32", "bf16", "int8"}))
      ->capture_default_str();
  app.add_option("--kv-dtype", kv_dtype,
                 "Type of cached pairs: f32, bf16, or int8 with a scale for each [--dtype]")
      ->check(OneOf({"f32", "bf16", "int8"}));
  app.add_option("--weights-cache", weights_cache,
                 "Folder of packed weights: packed once, mapped by every process [none]")
      ->type_name("DIR");
  app.add_option("--threads", placement.threads,
                 "Worker threads; 0 is one for each of --cpus, or for each CPU that may be used")
      ->check(IntegerIn(0, 1024))
      ->capture_default_str();
  placement.Declare(app);
}

kernels::DType ModelFlags::compute() const { return kernels::DTypeNamed(dtype); }

kernels::DType ModelFlags::pairs() const {
  return kv_dtype.empty() ? kernels::PairDType(compute()) : kernels::DTypeNamed(kv_dtype);
}

void PromptFlags::Declare(CLI::App& app) {
  CLI::Option* text = app.add_option("--document", document, "Text file, - for standard input");
  text->type_name("FILE");
  app.add_option("-q,--question", question, "Question, put after the document")
      ->type_name("TEXT")
      ->needs(text);
  app.add_option("--prompt-ids", prompt_ids, "JSON array of token ids instead of text")
      ->type_name("FILE")
      ->excludes(text);
}

absl::Status PromptFlags::Validate() const {
  if (given()) return absl::OkStatus();
  return absl::InvalidArgumentError("prompt: expected --document or --prompt-ids, found neither");
}

void DecodeFlags::Declare(CLI::App& app) {
  app.add_option("--gen-length", gen_length, "Masks to append: the longest answer, in tokens")
      ->check(IntegerIn(1, kLargestCount))
      ->capture_default_str();
  app.add_option("--block-length", block_length,
                 "Masks decoded together; divides --gen-length [8 if it divides and the rule has "
                 "blocks, else all]")
      ->check(IntegerIn(1, kLargestCount));
  app.add_option("--steps", steps,
                 "Denoising steps of rules that go by them; a multiple of the number of blocks "
                 "[--gen-length]")
      ->check(IntegerIn(1, kLargestCount));
  app.add_option("--temperature", temperature, "0 takes the most likely token")
      ->check(NumberIn(0, kHottest))
      ->capture_default_str();
  app.add_option("--seed", seed, "Of the sampling noise")->check(AnySeed())->capture_default_str();
  app.add_flag("--ignore-eos", ignore_eos, "Decode every mask even after an end token");
  app.add_flag("--suppress-eos", suppress_eos, "Never predict the checkpoint's end token");
  rule.Declare(app);
  growth.Declare(app);
}

absl::Status DecodeFlags::Validate() const {
  MASKKV_RETURN_IF_ERROR(rule.Validate());
  const decoding::RuleParams of = rule.params();
  MASKKV_RETURN_IF_ERROR(engine::CheckStepsAreRead(of.rule, steps));
  return Validate(of);
}

absl::Status DecodeFlags::Validate(const decoding::RuleParams& of) const {
  engine::GenerateParams checked = params(of);
  checked.stop_ids = {0};  // a checkpoint always has an eos
  return engine::Validate(checked);
}

engine::GenerateParams DecodeFlags::params(const decoding::RuleParams& of) const {
  engine::GenerateParams params;
  params.rule = of;
  params.gen_length = gen_length;
  params.block_length =
      block_length != 0 ? block_length : engine::DefaultBlockLength(of.rule, gen_length);
  params.steps = steps != 0 ? steps : gen_length;
  params.temperature = temperature;
  params.seed = seed;
  params.ignore_eos = ignore_eos;
  params.suppress_eos = suppress_eos;
  params.growth = growth.growth;
  return params;
}

void CacheFlags::Declare(CLI::App& app) {
  CLI::Option* named = app.add_option(
      "--policy", policy, "Eviction policy by name: maskkv, snapkv, ... (docs/policies.md)");
  named->check(AnyPolicy());
  app.add_option(
         "--cache", cache,
         "maskkv: evict by mask voting; full: keep every pair; none: recompute the prompt in "
         "every step; random: keep --budget random pairs a head")
      ->check(OneOf({"maskkv", "full", "none", "random"}))
      ->excludes(named)
      ->capture_default_str();
  app.add_option("--layers", layers,
                 "Layer budgets from the profile (offline), from this prompt (online), all equal "
                 "(uniform)")
      ->check(OneOf({"offline", "online", "uniform"}))
      ->excludes(named)
      ->capture_default_str();
  CLI::Option* count = app.add_option("--budget", budget, "Mean pairs kept a head a layer");
  count->check(IntegerIn(1, kLargestCount))->capture_default_str();
  CLI::Option* share = app.add_option("--coverage", coverage,
                                      "Instead of a budget: keep the fewest pairs with this share "
                                      "of each layer's score, at most 1");
  share->check(NumberIn(0, 1))->excludes(count);
  app.add_option("--max-budget", max_budget, "Most pairs a head a layer on average of --coverage")
      ->check(IntegerIn(1, kLargestCount))
      ->needs(share);
  app.add_option("--alpha", alpha, "Base rate of head budgets")
      ->check(NumberIn(0, 1))
      ->capture_default_str();
  app.add_option("--beta", beta, "Base rate of layer budgets")
      ->check(NumberIn(0, 1))
      ->capture_default_str();
  app.add_option("--profile", profile, "Importance profile [maskkv_profile.json in the model]")
      ->type_name("FILE");
}

CacheMode CacheFlags::mode() const {
  if (!policy.empty()) {
    const policy::Voters voters = parts().voters;
    return voters == policy::Voters::kFull     ? CacheMode::kFull
           : voters == policy::Voters::kRandom ? CacheMode::kRandom
                                               : CacheMode::kMaskKv;
  }
  if (cache == "full") return CacheMode::kFull;
  if (cache == "none") return CacheMode::kNone;
  if (cache == "random") return CacheMode::kRandom;
  return CacheMode::kMaskKv;
}

policy::PolicyParts CacheFlags::parts() const {
  using policy::HeadRule;
  using policy::LayerRule;
  using policy::Voters;
  if (!policy.empty()) return policy::ParsePolicy(policy).value();
  if (cache != "maskkv") {
    const Voters voters = cache == "random" ? Voters::kRandom : Voters::kFull;
    return {voters, LayerRule::kUniform, HeadRule::kUniform};
  }
  const LayerRule rule = layers == "online"    ? LayerRule::kOnline
                         : layers == "uniform" ? LayerRule::kUniform
                                               : LayerRule::kOffline;
  return {Voters::kMasks, rule, HeadRule::kPreference};
}

bool CacheFlags::HoldsAllLayers() const {
  return mode() == CacheMode::kFull ||
         (parts().layers == policy::LayerRule::kOnline && coverage == 0);
}

absl::StatusOr<engine::EvictionPlan> CacheFlags::Plan(const model::Checkpoint& checkpoint,
                                                      std::uint64_t seed) const {
  engine::EvictionPlan plan;
  plan.Follow(parts());
  plan.budget = budget;
  plan.coverage = coverage;
  plan.max_budget = max_budget;
  plan.alpha = alpha;
  plan.beta = beta;
  plan.random_seed = seed;
  if (coverage > 0 && !policy.empty() && policy::PolicyName(parts()) != "maskkv") {
    return absl::InvalidArgumentError(
        absl::StrFormat("--coverage: expected --policy maskkv, found --policy %s", policy));
  }
  if (coverage > 0 && plan.selection != engine::Selection::kMaskKv) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--coverage: expected --cache maskkv, found --cache %s", cache));
  }
  if (plan.selection != engine::Selection::kMaskKv || coverage > 0 ||
      !policy::NeedsImportance(plan.layer_rule)) {
    return plan;
  }
  const std::string path =
      profile.empty() ? checkpoint.directory() + "/" + std::string(policy::kProfileFileName)
                      : profile;
  absl::StatusOr<policy::ImportanceProfile> loaded = policy::LoadProfile(path);
  if (absl::IsNotFound(loaded.status())) {
    return absl::NotFoundError(absl::StrFormat(
        "%s: expected the model's importance profile, found no file: run maskkv calibrate, or use "
        "%s",
        path, policy.empty() ? "--layers online or uniform" : "a --policy without one"));
  }
  MASKKV_RETURN_IF_ERROR(loaded.status());
  if (loaded->model_fingerprint != checkpoint.Fingerprint()) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: field model_fingerprint: expected this checkpoint's %s, found %s: run "
                        "maskkv calibrate",
                        path, checkpoint.Fingerprint(), loaded->model_fingerprint));
  }
  plan.importance = std::move(loaded->importance);
  return plan;
}

}  // namespace maskkv::cli
