// SPDX-License-Identifier: Apache-2.0
//
// The importance profile: what calibration measured of a model (equation 8), so that layer budgets
// are known before a prompt runs. A small JSON file, by custom next to the model's weights:
//
//   {
//     "format": "maskkv importance profile",
//     "version": 1,
//     "model_fingerprint": "...",          of the weights it was measured on
//     "samples": 64,                       calibration prompts
//     "tokens": 70312,                     prompt and mask tokens of all samples
//     "importance": [0.41, 0.13, ...],     one a layer, mean over samples, 0 to 2
//     "creation": {"data": "...", "masks": 32, "dtype": "f32"}
//   }
//
// A value; the functions are thread safe. Numbers survive a round trip bit for bit.
// Invariant of every profile that Parse or Load returns and Format or Save accepts: Validate is OK.
#ifndef MASKKV_CORE_POLICY_PROFILE_H_
#define MASKKV_CORE_POLICY_PROFILE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace maskkv::policy {

inline constexpr std::string_view kProfileFileName = "maskkv_profile.json";
inline constexpr std::int64_t kProfileVersion = 1;
inline constexpr std::int64_t kMaxProfileBytes = 1 << 20;
inline constexpr std::int64_t kMaxProfileLayers = 4096;

struct ImportanceProfile {
  std::string model_fingerprint;   // 1 to 256 printable ASCII characters
  std::int64_t samples = 0;        // >= 1
  std::int64_t tokens = 0;         // >= samples
  std::vector<double> importance;  // 1 to kMaxProfileLayers values in [0, 2]

  // How it was made, for people; nothing is computed from it.
  struct Creation {
    std::string data;        // calibration set: up to 256 bytes of UTF-8, no control characters
    std::int64_t masks = 0;  // n_m of every sample, >= 1
    std::string dtype;       // "f32", "bf16" or "int8"

    bool operator==(const Creation&) const = default;
  } creation;

  bool operator==(const ImportanceProfile&) const = default;
};

// Errors: INVALID_ARGUMENT: "field F: expected ..., found ...".
absl::Status Validate(const ImportanceProfile& profile);

// The text of a profile, ending in a newline. REQUIRES: Validate(profile) is OK.
std::string FormatProfile(const ImportanceProfile& profile);

// Strict: every field once and of its type, no other fields. `file` is only for messages.
// Errors: INVALID_ARGUMENT, starting with `file` and the field; FAILED_PRECONDITION for another
// version of the format.
absl::StatusOr<ImportanceProfile> ParseProfile(std::string_view text, std::string_view file);

// Errors: as ParseProfile and ReadFile (core/base/file.h).
absl::StatusOr<ImportanceProfile> LoadProfile(const std::string& path);

// Replaces the file as a whole or not at all. Errors: as Validate and WriteFileAtomically.
absl::Status SaveProfile(const ImportanceProfile& profile, const std::string& path);

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_PROFILE_H_
