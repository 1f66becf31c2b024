// SPDX-License-Identifier: Apache-2.0
//
// How many rows of a prefill a tile has (PrefillForward::tile_rows) where others wait for it to
// end. Pure.
#ifndef MASKKV_CORE_ENGINE_TILE_ROWS_H_
#define MASKKV_CORE_ENGINE_TILE_ROWS_H_

#include <algorithm>
#include <cstdint>

#include "core/transformer/transformer.h"

namespace maskkv::engine {

// For rows that attend to `keys` pairs. Attention over a long prompt takes most of a block's time,
// so its blocks are cut: rows times keys stay those of a whole block over 8192 keys, down to 32
// rows. In [32, transformer::kRowBlock].
constexpr std::int64_t TileRows(std::int64_t keys) {
  constexpr std::int64_t kPairs = transformer::kRowBlock * 8192, kFewest = 32;
  const std::int64_t rows = kPairs / std::max<std::int64_t>(keys, 1);
  return std::clamp(rows / kFewest * kFewest, kFewest, transformer::kRowBlock);
}

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_TILE_ROWS_H_
