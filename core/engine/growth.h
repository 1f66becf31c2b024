// SPDX-License-Identifier: Apache-2.0
//
// Answers of variable length, after DAEDAL (arXiv 2508.00819): a canvas gets further masks at its
// end while the model does not expect the answer to end within it. Growth at the end moves no
// position: what was committed stays where it is, and the prompt's pairs stay valid.
// docs/adr/0011-remix-and-growth.md. Pure values and functions.
#ifndef MASKKV_CORE_ENGINE_GROWTH_H_
#define MASKKV_CORE_ENGINE_GROWTH_H_

#include <cstdint>

#include "absl/status/status.h"

namespace maskkv::engine {

// Keeps every product of lengths far from overflow.
inline constexpr std::int64_t kMaxLength = std::int64_t{1} << 24;

struct Growth {
  // The canvas may grow to so many masks; a multiple of block_length, at least gen_length. 0:
  // never.
  std::int64_t max_gen_length = 0;
  // By so many at a time (fewer where the limit is near); a multiple of block_length, 0: the
  // smallest that is at least 8.
  std::int64_t by = 0;
  // The end's certainty is the mean probability of the end token over so many last positions.
  std::int64_t window = 32;
  // Before anything is committed, the canvas grows while the certainty is below this.
  double eos_threshold = 0.5;
  // Afterwards it grows after a step that left a mask of its block whose confidence is below
  // low_confidence, if the certainty was below this.
  double eos_threshold_decoding = 0.9;
  double low_confidence = 0.1;

  bool operator==(const Growth&) const = default;
};

// Errors: INVALID_ARGUMENT that names the parameter ("growth.window"), expected, found. Nothing is
// asked of the others where max_gen_length is 0.
absl::Status Validate(const Growth& growth, std::int64_t gen_length, std::int64_t block_length);

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_GROWTH_H_
