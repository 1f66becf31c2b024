// SPDX-License-Identifier: Apache-2.0
//
// Flags that several subcommands share, as values, with the functions that declare them. A flag's
// text form is checked where it is parsed; what only the model can judge is checked by the engine.
#ifndef MASKKV_SERVICES_MASKKV_COMMON_FLAGS_H_
#define MASKKV_SERVICES_MASKKV_COMMON_FLAGS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "core/engine/eviction_plan.h"
#include "core/engine/generate_params.h"
#include "core/model/checkpoint.h"
#include "core/policy/named_policy.h"
#include "kernels/base/dtype.h"
#include "services/common/placement.h"
#include "services/maskkv/growth_flags.h"
#include "services/maskkv/rule_flags.h"

namespace CLI {
class App;
}

namespace maskkv::cli {

struct ModelFlags {
  std::string model;          // checkpoint directory
  std::string dtype = "f32";  // f32 | bf16 | int8
  std::string kv_dtype;       // f32 | bf16 | int8; "": as dtype, bf16 for int8
  services::PlacementOptions placement;
  std::string weights_cache;  // folder; "": none

  void Declare(CLI::App& app);
  kernels::DType compute() const;
  // Of cached pairs.
  kernels::DType pairs() const;
};

struct PromptFlags {
  std::string document;    // a file, or "-" for standard input
  std::string question;    // appended to the document after an empty line
  std::string prompt_ids;  // a file with a JSON array of token ids

  void Declare(CLI::App& app);
  bool given() const { return !document.empty() || !prompt_ids.empty(); }
  // Errors: INVALID_ARGUMENT if neither a document nor ids are given.
  absl::Status Validate() const;
};

struct DecodeFlags {
  std::int64_t gen_length = 32;
  std::int64_t block_length = 0;  // 0: engine::DefaultBlockLength
  std::int64_t steps = 0;         // 0: gen_length
  double temperature = 0;
  std::uint64_t seed = 0;
  bool ignore_eos = false;
  bool suppress_eos = false;
  RuleFlags rule;
  GrowthFlags growth;

  void Declare(CLI::App& app);
  // What can be said before a model is loaded. Errors: INVALID_ARGUMENT.
  absl::Status Validate() const;
  // The same under another rule than --rule's, which may be one of several: that it reads no steps
  // is no error.
  absl::Status Validate(const decoding::RuleParams& of) const;
  // With the defaults above filled in; stop_ids stay empty. REQUIRES: Validate() is OK.
  engine::GenerateParams params() const { return params(rule.params()); }
  engine::GenerateParams params(const decoding::RuleParams& of) const;
};

enum class CacheMode { kMaskKv, kFull, kNone, kRandom };

struct CacheFlags {
  std::string policy;              // a name (docs/policies.md) in the place of the next two; or ""
  std::string cache = "maskkv";    // maskkv | full | none | random
  std::string layers = "offline";  // offline | online | uniform
  std::int64_t budget = 64;
  double coverage = 0;          // 0: --budget counts
  std::int64_t max_budget = 0;  // of coverage; 0: no bound
  double alpha = 0.1;
  double beta = 0.4;
  std::string profile;  // "" is maskkv_profile.json in the model directory

  void Declare(CLI::App& app);
  CacheMode mode() const;
  // Whose the plan is; of a cache where the policy is empty. REQUIRES: the flags' checks passed.
  policy::PolicyParts parts() const;
  // True if prefill holds the K and V of every layer at once, as full keeps them.
  bool HoldsAllLayers() const;
  // The plan; reads the importance profile when the offline rule needs one.
  // Errors: of policy::LoadProfile; FAILED_PRECONDITION if it was made for other weights;
  // INVALID_ARGUMENT for coverage of another cache or policy than maskkv.
  absl::StatusOr<engine::EvictionPlan> Plan(const model::Checkpoint& checkpoint,
                                            std::uint64_t seed) const;
};

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_COMMON_FLAGS_H_
