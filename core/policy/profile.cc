// SPDX-License-Identifier: Apache-2.0
#include "core/policy/profile.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/status_macros.h"
#include "core/policy/importance.h"
#include "nlohmann/json.hpp"

namespace maskkv::policy {
namespace {

using nlohmann::json;

constexpr std::string_view kFormat = "maskkv importance profile";
constexpr std::size_t kLongestText = 256;
constexpr int kDeepestNesting = 8;  // a profile has two levels

absl::Status FieldError(std::string_view field, std::string_view expected, std::string_view found) {
  return absl::InvalidArgumentError(
      absl::StrFormat("field %s: expected %s, found %s", field, expected, found));
}

// A value as one short line of ASCII.
std::string Describe(const json& value) {
  constexpr std::size_t kLongest = 60;
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace);
  if (text.size() > kLongest) text.replace(kLongest, std::string::npos, "...");
  return text;
}

absl::Status CheckFingerprint(const std::string& text) {
  const bool printable = std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
  if (printable && !text.empty() && text.size() <= kLongestText) return absl::OkStatus();
  return FieldError("model_fingerprint",
                    absl::StrFormat("1 to %d printable ASCII characters", kLongestText),
                    Describe(json(text)));
}

// A file name, of any language.
absl::Status CheckDataName(const std::string& text) {
  const bool control = std::ranges::any_of(
      text, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; });
  // What is no UTF-8 does not survive the library's writer.
  const std::string written = json(text).dump(-1, ' ', false, json::error_handler_t::ignore);
  const bool utf8 = json::parse(written) == json(text);
  if (!control && utf8 && text.size() <= kLongestText) return absl::OkStatus();
  return FieldError(
      "creation.data",
      absl::StrFormat("at most %d bytes of UTF-8 without control characters", kLongestText),
      Describe(json(text)));
}

absl::Status CheckAtLeast(std::string_view field, std::int64_t value, std::int64_t least) {
  if (value >= least) return absl::OkStatus();
  return FieldError(field, absl::StrFormat("an integer >= %d", least),
                    absl::StrFormat("%d", value));
}

// A JSON object with exactly the expected members.
class Members {
 public:
  static absl::StatusOr<Members> Of(const json& object, std::string prefix,
                                    const std::set<std::string>& names) {
    if (!object.is_object()) {
      return FieldError(prefix.empty() ? "(whole file)" : prefix, "an object", Describe(object));
    }
    if (!prefix.empty()) prefix += '.';
    for (const auto& [name, value] : object.items()) {
      if (!names.contains(name)) {
        return FieldError(prefix + Describe(json(name)), "no such field", Describe(value));
      }
    }
    for (const std::string& name : names) {
      if (!object.contains(name)) return FieldError(prefix + name, "a value", "none");
    }
    return Members(object, std::move(prefix));
  }

  const json& at(const std::string& name) const { return (*object_)[name]; }

  absl::Status Read(const std::string& name, std::string& text) const {
    const json& value = at(name);
    if (!value.is_string()) return FieldError(prefix_ + name, "a string", Describe(value));
    text = value.get<std::string>();
    return absl::OkStatus();
  }

  absl::Status Read(const std::string& name, std::int64_t& integer) const {
    const json& value = at(name);
    const bool fits =
        value.is_number_integer() &&
        (!value.is_number_unsigned() || std::in_range<std::int64_t>(value.get<std::uint64_t>()));
    if (!fits) return FieldError(prefix_ + name, "a 64-bit integer", Describe(value));
    integer = value.get<std::int64_t>();
    return absl::OkStatus();
  }

  absl::Status Read(const std::string& name, std::vector<double>& numbers) const {
    const json& value = at(name);
    if (!value.is_array()) return FieldError(prefix_ + name, "an array", Describe(value));
    for (std::size_t i = 0; i < value.size(); ++i) {
      if (!value[i].is_number()) {
        return FieldError(absl::StrFormat("%s%s[%d]", prefix_, name, i), "a number",
                          Describe(value[i]));
      }
      numbers.push_back(value[i].get<double>());
    }
    return absl::OkStatus();
  }

 private:
  Members(const json& object, std::string prefix) : object_(&object), prefix_(std::move(prefix)) {}

  const json* object_;
  std::string prefix_;
};

// The library keeps the last of two equal keys, and writes and copies values by recursion: we
// refuse equal keys, and nesting that no profile has is dropped while it is read.
absl::StatusOr<json> ParseJson(std::string_view text) {
  std::vector<std::set<std::string>> open;
  std::string doubled;
  bool too_deep = false;
  const auto watch = [&](int depth, json::parse_event_t event, json& value) {
    too_deep |= depth > kDeepestNesting;
    if (too_deep) return false;
    if (event == json::parse_event_t::object_start) open.emplace_back();
    if (event == json::parse_event_t::object_end) open.pop_back();
    if (event == json::parse_event_t::key && !open.back().insert(value.get<std::string>()).second) {
      doubled = Describe(value);
    }
    return true;
  };
  json parsed = json::parse(text, watch, /*allow_exceptions=*/false);
  if (too_deep) {
    return absl::InvalidArgumentError(
        absl::StrFormat("expected at most %d levels of nesting, found more", kDeepestNesting));
  }
  if (parsed.is_discarded()) return absl::InvalidArgumentError("expected JSON, found other text");
  if (!doubled.empty()) return FieldError(doubled, "every field once", "it twice");
  return parsed;
}

absl::StatusOr<ImportanceProfile> FromJson(const json& root) {
  MASKKV_ASSIGN_OR_RETURN(const Members fields,
                          Members::Of(root, "",
                                      {"format", "version", "model_fingerprint", "samples",
                                       "tokens", "importance", "creation"}));
  std::string format;
  MASKKV_RETURN_IF_ERROR(fields.Read("format", format));
  if (format != kFormat) {
    return FieldError("format", Describe(json(kFormat)), Describe(json(format)));
  }
  ImportanceProfile profile;
  MASKKV_RETURN_IF_ERROR(fields.Read("model_fingerprint", profile.model_fingerprint));
  MASKKV_RETURN_IF_ERROR(fields.Read("samples", profile.samples));
  MASKKV_RETURN_IF_ERROR(fields.Read("tokens", profile.tokens));
  MASKKV_RETURN_IF_ERROR(fields.Read("importance", profile.importance));
  MASKKV_ASSIGN_OR_RETURN(const Members creation, Members::Of(fields.at("creation"), "creation",
                                                              {"data", "masks", "dtype"}));
  MASKKV_RETURN_IF_ERROR(creation.Read("data", profile.creation.data));
  MASKKV_RETURN_IF_ERROR(creation.Read("masks", profile.creation.masks));
  MASKKV_RETURN_IF_ERROR(creation.Read("dtype", profile.creation.dtype));
  MASKKV_RETURN_IF_ERROR(Validate(profile));
  return profile;
}

// Looked at before the fields, which another version may name otherwise.
absl::Status CheckVersion(const json& root) {
  if (!root.is_object() || !root.contains("version")) return absl::OkStatus();
  const json& version = root["version"];
  if (version == kProfileVersion && version.is_number_integer()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrFormat("field version: expected %d, found %s", kProfileVersion, Describe(version)));
}

}  // namespace

absl::Status Validate(const ImportanceProfile& profile) {
  MASKKV_RETURN_IF_ERROR(CheckFingerprint(profile.model_fingerprint));
  MASKKV_RETURN_IF_ERROR(CheckAtLeast("samples", profile.samples, 1));
  MASKKV_RETURN_IF_ERROR(CheckAtLeast("tokens", profile.tokens, profile.samples));
  const auto layers = static_cast<std::int64_t>(profile.importance.size());
  if (layers < 1 || layers > kMaxProfileLayers) {
    return FieldError("importance", absl::StrFormat("1 to %d layers", kMaxProfileLayers),
                      absl::StrFormat("%d", layers));
  }
  if (absl::Status status = CheckImportance(profile.importance); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrFormat("field %s", status.message()));
  }
  MASKKV_RETURN_IF_ERROR(CheckDataName(profile.creation.data));
  MASKKV_RETURN_IF_ERROR(CheckAtLeast("creation.masks", profile.creation.masks, 1));
  const std::string& dtype = profile.creation.dtype;
  if (dtype != "f32" && dtype != "bf16" && dtype != "int8") {
    return FieldError("creation.dtype", "\"f32\", \"bf16\" or \"int8\"", Describe(json(dtype)));
  }
  return absl::OkStatus();
}

std::string FormatProfile(const ImportanceProfile& profile) {
  MASKKV_CHECK(Validate(profile).ok(), "only valid profiles are written");
  nlohmann::ordered_json root;
  root["format"] = kFormat;
  root["version"] = kProfileVersion;
  root["model_fingerprint"] = profile.model_fingerprint;
  root["samples"] = profile.samples;
  root["tokens"] = profile.tokens;
  root["importance"] = profile.importance;
  root["creation"] = {{"data", profile.creation.data},
                      {"masks", profile.creation.masks},
                      {"dtype", profile.creation.dtype}};
  return root.dump(2) + "\n";
}

absl::StatusOr<ImportanceProfile> ParseProfile(std::string_view text, std::string_view file) {
  const auto in_file = [file](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrFormat("%s: %s", file, status.message()));
  };
  const absl::StatusOr<json> root = ParseJson(text);
  if (!root.ok()) return in_file(root.status());
  if (absl::Status status = CheckVersion(*root); !status.ok()) return in_file(status);
  absl::StatusOr<ImportanceProfile> profile = FromJson(*root);
  if (!profile.ok()) return in_file(profile.status());
  return profile;
}

absl::StatusOr<ImportanceProfile> LoadProfile(const std::string& path) {
  MASKKV_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxProfileBytes));
  return ParseProfile(text, path);
}

absl::Status SaveProfile(const ImportanceProfile& profile, const std::string& path) {
  MASKKV_RETURN_IF_ERROR(Validate(profile));
  return WriteFileAtomically(path, FormatProfile(profile));
}

}  // namespace maskkv::policy
