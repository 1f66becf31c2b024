// SPDX-License-Identifier: Apache-2.0
//
// The slow twin of a transformer block, from what the families' papers and published code say: one
// row and one number at a time, each with its bound (bounded.h).
#ifndef MASKKV_TESTS_UNIT_CORE_TRANSFORMER_BLOCK_REFERENCE_H_
#define MASKKV_TESTS_UNIT_CORE_TRANSFORMER_BLOCK_REFERENCE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "core/model/checkpoint.h"
#include "tests/unit/core/transformer/bounded.h"

namespace maskkv::transformer {

using Row = std::vector<Bounded>;

// The rows after block `layer`, which attend to each other. Where two experts are so close that an
// f32 computation may choose another one, `ambiguous` becomes true.
std::vector<Row> ReferenceBlock(const model::Checkpoint& checkpoint, std::int64_t layer,
                                std::span<const Row> rows, std::span<const std::int32_t> positions,
                                bool& ambiguous);

}  // namespace maskkv::transformer

#endif  // MASKKV_TESTS_UNIT_CORE_TRANSFORMER_BLOCK_REFERENCE_H_
