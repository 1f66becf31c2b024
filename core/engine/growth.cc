// SPDX-License-Identifier: Apache-2.0
#include "core/engine/growth.h"

#include "absl/strings/str_format.h"

namespace maskkv::engine {
namespace {

absl::Status CheckShare(const char* name, double value) {
  if (value >= 0 && value <= 1) return absl::OkStatus();  // NaN is refused
  return absl::InvalidArgumentError(
      absl::StrFormat("growth.%s: expected a number from 0 to 1, found %g", name, value));
}

}  // namespace

absl::Status Validate(const Growth& growth, std::int64_t gen_length, std::int64_t block_length) {
  if (growth.max_gen_length == 0) return absl::OkStatus();
  if (growth.max_gen_length < gen_length || growth.max_gen_length > kMaxLength ||
      growth.max_gen_length % block_length != 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "growth.max_gen_length: expected a multiple of block_length %d from gen_length %d to %d, "
        "found %d",
        block_length, gen_length, kMaxLength, growth.max_gen_length));
  }
  if (growth.by < 0 || growth.by > kMaxLength || growth.by % block_length != 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "growth.by: expected a multiple of block_length %d up to %d, or 0, found %d", block_length,
        kMaxLength, growth.by));
  }
  if (growth.window < 1 || growth.window > kMaxLength) {
    return absl::InvalidArgumentError(
        absl::StrFormat("growth.window: expected 1 to %d, found %d", kMaxLength, growth.window));
  }
  absl::Status status = CheckShare("eos_threshold", growth.eos_threshold);
  status.Update(CheckShare("eos_threshold_decoding", growth.eos_threshold_decoding));
  status.Update(CheckShare("low_confidence", growth.low_confidence));
  return status;
}

}  // namespace maskkv::engine
