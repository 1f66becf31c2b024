// SPDX-License-Identifier: Apache-2.0
//
// What a budget costs on a user's own prompts, measured without labels against the run that keeps
// every pair (core/engine/quality.h), and the budget that it names. A small JSON file, by custom
// next to the model's weights; the budget controller takes its default B from it:
//
//   {
//     "format": "maskkv quality curve",
//     "version": 1,
//     "model_fingerprint": "...",   of the weights it was measured on
//     "policy": "maskkv",           a name of docs/policies.md
//     "prompts": 64,
//     "agreement": 0.99,            what was asked for
//     "budget": 32,                 named, or null where no budget reaches it
//     "points": [{"budget": 8, "predictions": 512, "agreed": 500, "divergence": 0.031,
//                 "equal_answers": 60, "kept_mass": 0.21}, ...]   ascending by budget
//   }
//
// A value; the functions are thread safe. Invariant of every curve that Parse or Load returns and
// Save accepts: Validate is OK.
#ifndef MASKKV_CORE_BUDGET_QUALITY_CURVE_H_
#define MASKKV_CORE_BUDGET_QUALITY_CURVE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace maskkv::budget {

inline constexpr std::string_view kQualityFileName = "maskkv_quality.json";
inline constexpr std::int64_t kQualityVersion = 1;

struct QualityPoint {
  std::int64_t budget = 1;         // B
  std::int64_t predictions = 0;    // masked positions of all steps of all prompts
  std::int64_t agreed = 0;         // of which the most likely token is the reference's
  double divergence = 0;           // mean KL(reference || this) of a prediction, nats, >= 0
  std::int64_t equal_answers = 0;  // prompts whose whole answer is the reference's
  double kept_mass = 0;            // mean over prompts, 0 to 1

  double agreement() const;  // agreed / predictions; 1 without any
  bool operator==(const QualityPoint&) const = default;
};

struct QualityCurve {
  std::string model_fingerprint;
  std::string policy;
  std::int64_t prompts = 0;
  double agreement = 0.99;
  std::vector<QualityPoint> points;  // at least one, ascending by budget

  // The smallest budget that reaches `agreement`, with every larger one; none if the largest does
  // not.
  std::optional<std::int64_t> NamedBudget() const;
  bool operator==(const QualityCurve&) const = default;
};

// Errors: INVALID_ARGUMENT: "field F: expected ..., found ...".
absl::Status Validate(const QualityCurve& curve);

// The text of a curve, ending in a newline. REQUIRES: Validate(curve) is OK.
std::string FormatQualityCurve(const QualityCurve& curve);

// `file` is only for messages. Errors: INVALID_ARGUMENT naming file and field, also where "budget"
// is not what the points name; FAILED_PRECONDITION for another version of the format.
absl::StatusOr<QualityCurve> ParseQualityCurve(std::string_view text, std::string_view file);

// Errors: as ParseQualityCurve and ReadFile (core/base/file.h).
absl::StatusOr<QualityCurve> LoadQualityCurve(const std::string& path);

// Replaces the file as a whole or not at all. Errors: as Validate and WriteFileAtomically.
absl::Status SaveQualityCurve(const QualityCurve& curve, const std::string& path);

}  // namespace maskkv::budget

#endif  // MASKKV_CORE_BUDGET_QUALITY_CURVE_H_
