// SPDX-License-Identifier: Apache-2.0
#include "services/decode/request_check.h"

#include <cmath>
#include <string_view>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "core/engine/constraint.h"
#include "core/schedule/admission_queue.h"
#include "maskkv/v1/decode.pb.h"
#include "services/common/handle_proto.h"
#include "services/decode/automaton_proto.h"

namespace maskkv::decode {
namespace {

constexpr std::int64_t kDefaultGenLength = 32;
constexpr double kMaxTemperature = 1000;
constexpr int kMaxStops = 16;
constexpr std::size_t kMaxStopBytes = 256;
constexpr std::uint32_t kMaxKeepEntryMs = 3'600'000;

absl::Status Invalid(std::string_view reason, std::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason, message);
}

absl::Status BadSampler(const absl::Status& status) {
  return Invalid("BAD_SAMPLER", std::string(status.message()));
}

// The rule and its parameters; their ranges are engine::Validate's.
absl::StatusOr<decoding::RuleParams> RuleOf(const v1::Sampler& sampler) {
  decoding::RuleParams params;
  if (!sampler.rule().empty()) {
    const absl::StatusOr<decoding::Rule> rule = decoding::ParseRule(sampler.rule());
    if (!rule.ok()) return BadSampler(rule.status());
    params.rule = *rule;
  }
  switch (sampler.confidence_source()) {
    case v1::CONFIDENCE_SOURCE_UNSPECIFIED:
      break;
    case v1::CONFIDENCE_SOURCE_RAW:
      params.source = decoding::ConfidenceSource::kRaw;
      break;
    case v1::CONFIDENCE_SOURCE_FILTERED:
      params.source = decoding::ConfidenceSource::kFiltered;
      break;
    default:
      return Invalid("BAD_SAMPLER",
                     absl::StrFormat("confidence_source: expected a value of ConfidenceSource, "
                                     "found %d",
                                     static_cast<int>(sampler.confidence_source())));
  }
  if (sampler.has_top_p()) params.top_p = sampler.top_p();
  params.top_k = sampler.top_k();
  if (sampler.has_eps()) params.eps = sampler.eps();
  params.alg_temp = sampler.alg_temp();
  if (sampler.has_threshold()) params.threshold = sampler.threshold();
  if (sampler.has_low_threshold()) params.low_threshold = sampler.low_threshold();
  if (sampler.has_factor()) params.factor = sampler.factor();
  if (sampler.has_span_threshold()) params.span_threshold = sampler.span_threshold();
  if (sampler.explore_steps() != 0) params.explore_steps = sampler.explore_steps();
  if (sampler.stable_steps() != 0) params.stable_steps = sampler.stable_steps();
  if (sampler.has_mix_weight()) params.mix_weight = sampler.mix_weight();
  if (sampler.mix_top() != 0) params.mix_top = sampler.mix_top();
  if (sampler.has_js_threshold()) params.js_threshold = sampler.js_threshold();
  return params;
}

// Ranges are engine::Validate's.
engine::Growth GrowthOf(const v1::Growth& growth) {
  engine::Growth params;
  params.max_gen_length = growth.max_gen_length();
  params.by = growth.by();
  if (growth.window() != 0) params.window = growth.window();
  if (growth.has_eos_threshold()) params.eos_threshold = growth.eos_threshold();
  if (growth.has_eos_threshold_decoding()) {
    params.eos_threshold_decoding = growth.eos_threshold_decoding();
  }
  if (growth.has_low_confidence()) params.low_confidence = growth.low_confidence();
  return params;
}

// canvas: positions of the request's canvas, 0 without one. fills_in: all of it is the answer.
absl::StatusOr<engine::GenerateParams> CheckSampler(const v1::Sampler& sampler,
                                                    const RequestLimits& limits,
                                                    std::int64_t canvas, bool fills_in) {
  engine::GenerateParams params;
  params.whole_canvas = fills_in;
  if (canvas > 0 && sampler.gen_length() != 0 && sampler.gen_length() != canvas) {
    return Invalid("BAD_SAMPLER",
                   absl::StrFormat("gen_length: expected 0 or the canvas' length %d, found %d",
                                   canvas, sampler.gen_length()));
  }
  params.gen_length = canvas > 0                  ? canvas
                      : sampler.gen_length() == 0 ? kDefaultGenLength
                                                  : sampler.gen_length();
  if (params.gen_length < 1 || params.gen_length > limits.max_gen_length) {
    return Invalid("BAD_SAMPLER", absl::StrFormat("gen_length: expected 1 to %d, found %d",
                                                  limits.max_gen_length, params.gen_length));
  }
  MASKKV_ASSIGN_OR_RETURN(params.rule, RuleOf(sampler));
  params.block_length = sampler.block_length() != 0 ? sampler.block_length()
                        : fills_in
                            ? params.gen_length
                            : engine::DefaultBlockLength(params.rule.rule, params.gen_length);
  if (const absl::Status read = engine::CheckStepsAreRead(params.rule.rule, sampler.steps());
      !read.ok()) {
    return BadSampler(read);
  }
  params.steps = sampler.steps() == 0 ? params.gen_length : sampler.steps();
  params.temperature = sampler.temperature();
  params.seed = sampler.seed();
  params.ignore_eos = sampler.ignore_eos();
  params.suppress_eos = sampler.suppress_eos();
  params.refresh_every = sampler.refresh_every();
  params.refresh_floor = sampler.refresh_floor();
  params.response_every = sampler.response_every();
  if (sampler.has_response_share()) params.response_share = sampler.response_share();
  params.cfg_scale = sampler.cfg_scale();
  params.growth = GrowthOf(sampler.growth());
  params.stop_ids = limits.stop_ids;
  if (params.temperature > kMaxTemperature) {
    return Invalid("BAD_SAMPLER", absl::StrFormat("temperature: expected at most %g, found %g",
                                                  kMaxTemperature, params.temperature));
  }
  if (const absl::Status valid = engine::Validate(params); !valid.ok()) {
    return BadSampler(valid);
  }
  if (params.longest() > limits.max_gen_length) {
    return Invalid("BAD_SAMPLER",
                   absl::StrFormat("growth.max_gen_length: expected at most %d, found %d",
                                   limits.max_gen_length, params.longest()));
  }
  return params;
}

absl::Status CheckStops(const v1::GenerateRequest& request, const RequestLimits& limits,
                        bool fills_in) {
  if (fills_in && request.stop_size() > 0) {
    return Invalid(
        "BAD_STOP",
        absl::StrFormat("stop: expected none with a canvas or a suffix, found %d strings",
                        request.stop_size()));
  }
  if (request.stop_size() > kMaxStops) {
    return Invalid("BAD_STOP", absl::StrFormat("stop: expected at most %d strings, found %d",
                                               kMaxStops, request.stop_size()));
  }
  for (int i = 0; i < request.stop_size(); ++i) {
    const std::size_t bytes = request.stop(i).size();
    if (bytes < 1 || bytes > kMaxStopBytes) {
      return Invalid("BAD_STOP", absl::StrFormat("stop %d: expected 1 to %d bytes, found %d", i,
                                                 kMaxStopBytes, bytes));
    }
  }
  if (request.stop_size() > 0 && !limits.has_tokenizer) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "NO_TOKENIZER",
                     "stop: expected a model with a tokenizer, found none");
  }
  return absl::OkStatus();
}

absl::Status CheckAutomaton(const v1::GenerateRequest& request, const RequestLimits& limits,
                            CheckedRequest& checked) {
  if (!request.has_automaton()) return absl::OkStatus();
  const auto bad = [](const absl::Status& status) {
    return Invalid("BAD_AUTOMATON", std::string(status.message()));
  };
  absl::StatusOr<std::shared_ptr<const decoding::TokenAutomaton>> automaton =
      AutomatonOf(request.automaton());
  if (!automaton.ok()) return bad(automaton.status());
  checked.params.automaton = *std::move(automaton);
  if (request.stop_size() > 0) {
    return Invalid("BAD_AUTOMATON", "stop: expected none with an automaton, found some");
  }
  const absl::Status fits =
      engine::CheckAutomaton(checked.params, limits.mask_id, limits.vocabulary, checked.canvas);
  return fits.ok() ? fits : bad(fits);
}

absl::StatusOr<arena::Handle> CheckHandle(const v1::Handle& handle) {
  if (handle.owner().empty() || handle.entry_id() == 0 || handle.version() == 0) {
    return Invalid("BAD_HANDLE",
                   "handle: expected owner, entry_id and version as they were given, found none");
  }
  return services::FromProto(handle);
}

// Cache and reuse, and the handle that one of them needs.
absl::Status CheckCache(const v1::GenerateRequest& request, CheckedRequest& checked) {
  switch (request.cache()) {
    case v1::CACHE_UNSPECIFIED:
    case v1::CACHE_COMPRESSED:
      break;
    case v1::CACHE_NONE:
      checked.use_cache = false;
      break;
    default:
      return Invalid("BAD_CACHE", absl::StrFormat("cache: expected a value of Cache, found %d",
                                                  static_cast<int>(request.cache())));
  }
  switch (request.reuse()) {
    case v1::REUSE_UNSPECIFIED:
    case v1::REUSE_VOTE_AGAIN:
      return absl::OkStatus();
    case v1::REUSE_KEPT:
    case v1::REUSE_VOTE_OVER:
      break;
    default:
      return Invalid("BAD_REUSE", absl::StrFormat("reuse: expected a value of Reuse, found %d",
                                                  static_cast<int>(request.reuse())));
  }
  const std::string& reuse = v1::Reuse_Name(request.reuse());
  if (!checked.use_cache) {
    return Invalid("BAD_REUSE", absl::StrFormat("reuse: expected CACHE_COMPRESSED with %s, found "
                                                "CACHE_NONE",
                                                reuse));
  }
  if (!request.has_handle()) {
    return Invalid("BAD_HANDLE",
                   absl::StrFormat("handle: expected one with %s, found none", reuse));
  }
  MASKKV_ASSIGN_OR_RETURN(const arena::Handle handle, CheckHandle(request.handle()));
  checked.votes_over = request.reuse() == v1::REUSE_VOTE_OVER;
  if (!checked.votes_over) checked.reused = handle;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CheckedRequest> CheckRequest(const v1::GenerateRequest& request,
                                            const RequestLimits& limits,
                                            std::vector<std::int32_t> canvas) {
  CheckedRequest checked;
  if (!request.has_prompt()) return Invalid("NO_PROMPT", "prompt: expected one, found none");
  const bool fills_in = !canvas.empty() || request.prompt().has_suffix();
  MASKKV_ASSIGN_OR_RETURN(checked.params,
                          CheckSampler(request.sampler(), limits, std::ssize(canvas), fills_in));
  checked.canvas = std::move(canvas);
  MASKKV_RETURN_IF_ERROR(CheckStops(request, limits, fills_in));
  MASKKV_RETURN_IF_ERROR(CheckAutomaton(request, limits, checked));
  MASKKV_RETURN_IF_ERROR(CheckCache(request, checked));
  if (checked.params.refreshes() && (!checked.use_cache || checked.reused || checked.votes_over)) {
    return Invalid(
        "BAD_SAMPLER",
        absl::StrFormat("refresh_every, refresh_floor: expected 0 with %s, found another "
                        "value",
                        checked.use_cache ? v1::Reuse_Name(request.reuse()) : "CACHE_NONE"));
  }
  if (checked.votes_over && fills_in) {
    return Invalid("BAD_REUSE",
                   "reuse: expected no canvas and no suffix with REUSE_VOTE_OVER, found one");
  }
  if (checked.params.guided() && checked.reused) {
    return Invalid("BAD_SAMPLER",
                   absl::StrFormat("cfg_scale: expected 0 with REUSE_KEPT, whose entry has none of "
                                   "the masked prompt beside it, found %g",
                                   checked.params.cfg_scale));
  }
  constexpr std::int32_t kMaxPriority = schedule::AdmissionQueue::kMaxPriority;
  if (request.priority() < -kMaxPriority || request.priority() > kMaxPriority) {
    return Invalid("BAD_PRIORITY",
                   absl::StrFormat("priority: expected an integer from %d to %d, found %d",
                                   -kMaxPriority, kMaxPriority, request.priority()));
  }
  checked.samples = request.samples() == 0 ? 1 : request.samples();
  if (checked.samples < 1 || checked.samples > limits.max_samples) {
    return Invalid("BAD_SAMPLES", absl::StrFormat("samples: expected 1 to %d, found %d",
                                                  limits.max_samples, checked.samples));
  }
  if (request.keep_entry_ms() > kMaxKeepEntryMs) {
    return Invalid("BAD_KEEP_ENTRY", absl::StrFormat("keep_entry_ms: expected at most %d, found %d",
                                                     kMaxKeepEntryMs, request.keep_entry_ms()));
  }
  checked.priority = request.priority();
  checked.stop.assign(request.stop().begin(), request.stop().end());
  checked.provisional = request.provisional();
  checked.keep_entry = std::chrono::milliseconds(request.keep_entry_ms());
  return checked;
}

}  // namespace maskkv::decode
