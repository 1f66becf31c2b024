// SPDX-License-Identifier: Apache-2.0
#include "core/arena/entry_metadata.h"

#include <vector>

#include <bit>

#include "core/base/sha256.h"

namespace maskkv::arena {

static_assert(std::endian::native == std::endian::little, "ids are hashed as they lie in memory");

Digest TokenDigest(std::span<const std::int32_t> ids) {
  Sha256 hash;
  hash.Update(std::as_bytes(ids));
  return hash.Finish();
}

Digest CanvasDigest(std::span<const std::int32_t> canvas, std::span<const std::int32_t> suffix) {
  if (canvas.empty() && suffix.empty()) return {};
  std::vector<std::int32_t> ids(canvas.begin(), canvas.end());
  ids.insert(ids.end(), suffix.begin(), suffix.end());
  return TokenDigest(ids);
}

}  // namespace maskkv::arena
