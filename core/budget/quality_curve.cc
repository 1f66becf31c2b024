// SPDX-License-Identifier: Apache-2.0
#include "core/budget/quality_curve.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/file.h"
#include "core/base/status_macros.h"
#include "core/model/json_reader.h"
#include "nlohmann/json.hpp"

namespace maskkv::budget {
namespace {

using model::JsonDocument;
using model::JsonField;

constexpr std::string_view kFormat = "maskkv quality curve";
constexpr std::int64_t kMaxBytes = 1 << 20;
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

absl::Status FieldError(const std::string& field, const std::string& expected,
                        const std::string& found) {
  return absl::InvalidArgumentError(
      absl::StrFormat("field %s: expected %s, found %s", field, expected, found));
}

absl::Status CheckShare(const std::string& field, double value) {
  if (value >= 0 && value <= 1) return absl::OkStatus();  // NaN is not
  return FieldError(field, "a number from 0 to 1", absl::StrCat(value));
}

absl::Status CheckCount(const std::string& field, std::int64_t value, std::int64_t most) {
  if (value >= 0 && value <= most) return absl::OkStatus();
  return FieldError(field, absl::StrFormat("an integer from 0 to %d", most), absl::StrCat(value));
}

absl::StatusOr<std::int64_t> Integer(const JsonField& object, std::string_view name,
                                     std::int64_t least) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, object.Get(name));
  return field.Integer(least, kMost);
}

absl::StatusOr<double> Number(const JsonField& object, std::string_view name) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, object.Get(name));
  return field.Number();
}

absl::StatusOr<std::string> Text(const JsonField& object, std::string_view name) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, object.Get(name));
  MASKKV_ASSIGN_OR_RETURN(const std::string_view text, field.String());
  return std::string(text);
}

absl::StatusOr<QualityPoint> ReadPoint(const JsonField& field) {
  QualityPoint point;
  MASKKV_ASSIGN_OR_RETURN(point.budget, Integer(field, "budget", 1));
  MASKKV_ASSIGN_OR_RETURN(point.predictions, Integer(field, "predictions", 0));
  MASKKV_ASSIGN_OR_RETURN(point.agreed, Integer(field, "agreed", 0));
  MASKKV_ASSIGN_OR_RETURN(point.divergence, Number(field, "divergence"));
  MASKKV_ASSIGN_OR_RETURN(point.equal_answers, Integer(field, "equal_answers", 0));
  MASKKV_ASSIGN_OR_RETURN(point.kept_mass, Number(field, "kept_mass"));
  return point;
}

absl::Status CheckFormat(const JsonField& root) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField format, root.Get("format"));
  MASKKV_ASSIGN_OR_RETURN(const std::string_view name, format.String());
  if (name != kFormat) return format.Expected(absl::StrCat("\"", std::string(kFormat), "\""));
  MASKKV_ASSIGN_OR_RETURN(const JsonField version, root.Get("version"));
  MASKKV_ASSIGN_OR_RETURN(const std::int64_t number, version.Integer(1, kMost));
  if (number == kQualityVersion) return absl::OkStatus();
  return absl::FailedPreconditionError(version.Expected(absl::StrCat(kQualityVersion)).message());
}

// The named budget is written for people and other programs; it has to be the one that follows.
absl::Status CheckNamed(const JsonField& root, const QualityCurve& curve) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, root.Get("budget"));
  const std::optional<std::int64_t> named = curve.NamedBudget();
  if (field.is_null()) {
    return named ? field.Expected(absl::StrCat(*named, ", as the points say")) : absl::OkStatus();
  }
  MASKKV_ASSIGN_OR_RETURN(const std::int64_t budget, field.Integer(1, kMost));
  if (budget == named) return absl::OkStatus();
  return field.Expected(absl::StrCat(named ? absl::StrCat(*named) : "null", ", as the points say"));
}

}  // namespace

double QualityPoint::agreement() const {
  return predictions == 0 ? 1 : static_cast<double>(agreed) / static_cast<double>(predictions);
}

std::optional<std::int64_t> QualityCurve::NamedBudget() const {
  std::optional<std::int64_t> named;
  for (auto point = points.rbegin(); point != points.rend(); ++point) {
    if (!(point->agreement() >= agreement)) break;
    named = point->budget;
  }
  return named;
}

absl::Status Validate(const QualityCurve& curve) {
  if (curve.model_fingerprint.empty()) return FieldError("model_fingerprint", "a text", "none");
  if (curve.policy.empty()) return FieldError("policy", "a name", "none");
  MASKKV_RETURN_IF_ERROR(CheckShare("agreement", curve.agreement));
  if (curve.prompts < 1) return FieldError("prompts", "at least 1", absl::StrCat(curve.prompts));
  if (curve.points.empty()) return FieldError("points", "at least one", "none");
  for (std::size_t i = 0; i < curve.points.size(); ++i) {
    const QualityPoint& point = curve.points[i];
    const std::string at = absl::StrFormat("points[%d].", i);
    const std::int64_t above = i == 0 ? 0 : curve.points[i - 1].budget;
    if (point.budget <= above) {
      return FieldError(at + "budget", absl::StrFormat("more than %d", above),
                        absl::StrCat(point.budget));
    }
    MASKKV_RETURN_IF_ERROR(CheckCount(at + "predictions", point.predictions, kMost));
    MASKKV_RETURN_IF_ERROR(CheckCount(at + "agreed", point.agreed, point.predictions));
    MASKKV_RETURN_IF_ERROR(CheckCount(at + "equal_answers", point.equal_answers, curve.prompts));
    MASKKV_RETURN_IF_ERROR(CheckShare(at + "kept_mass", point.kept_mass));
    if (!std::isfinite(point.divergence) || point.divergence < 0) {
      return FieldError(at + "divergence", "a number >= 0", absl::StrCat(point.divergence));
    }
  }
  return absl::OkStatus();
}

std::string FormatQualityCurve(const QualityCurve& curve) {
  using Json = nlohmann::ordered_json;
  Json points = Json::array();
  for (const QualityPoint& point : curve.points) {
    points.push_back({{"budget", point.budget},
                      {"predictions", point.predictions},
                      {"agreed", point.agreed},
                      {"divergence", point.divergence},
                      {"equal_answers", point.equal_answers},
                      {"kept_mass", point.kept_mass}});
  }
  const std::optional<std::int64_t> named = curve.NamedBudget();
  const Json root = {{"format", kFormat},
                     {"version", kQualityVersion},
                     {"model_fingerprint", curve.model_fingerprint},
                     {"policy", curve.policy},
                     {"prompts", curve.prompts},
                     {"agreement", curve.agreement},
                     {"budget", named ? Json(*named) : Json(nullptr)},
                     {"points", std::move(points)}};
  return root.dump(2) + "\n";
}

absl::StatusOr<QualityCurve> ParseQualityCurve(std::string_view text, std::string_view file) {
  MASKKV_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(text, file));
  const JsonField root = document.root();
  MASKKV_RETURN_IF_ERROR(CheckFormat(root));
  QualityCurve curve;
  MASKKV_ASSIGN_OR_RETURN(curve.model_fingerprint, Text(root, "model_fingerprint"));
  MASKKV_ASSIGN_OR_RETURN(curve.policy, Text(root, "policy"));
  MASKKV_ASSIGN_OR_RETURN(curve.prompts, Integer(root, "prompts", 1));
  MASKKV_ASSIGN_OR_RETURN(curve.agreement, Number(root, "agreement"));
  MASKKV_ASSIGN_OR_RETURN(const JsonField points, root.Get("points"));
  MASKKV_RETURN_IF_ERROR(points.ForEachElement([&](const JsonField& field) -> absl::Status {
    MASKKV_ASSIGN_OR_RETURN(const QualityPoint point, ReadPoint(field));
    curve.points.push_back(point);
    return absl::OkStatus();
  }));
  if (const absl::Status status = Validate(curve); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(file), ": ", status.message()));
  }
  MASKKV_RETURN_IF_ERROR(CheckNamed(root, curve));
  return curve;
}

absl::StatusOr<QualityCurve> LoadQualityCurve(const std::string& path) {
  MASKKV_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxBytes));
  return ParseQualityCurve(text, path);
}

absl::Status SaveQualityCurve(const QualityCurve& curve, const std::string& path) {
  MASKKV_RETURN_IF_ERROR(Validate(curve));
  return WriteFileAtomically(path, FormatQualityCurve(curve));
}

}  // namespace maskkv::budget
