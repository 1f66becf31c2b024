// SPDX-License-Identifier: Apache-2.0
#include "core/arena/entry_metadata.h"

#include <bit>

#include "core/base/sha256.h"

namespace maskkv::arena {

static_assert(std::endian::native == std::endian::little, "ids are hashed as they lie in memory");

Digest TokenDigest(std::span<const std::int32_t> ids) {
  Sha256 hash;
  hash.Update(std::as_bytes(ids));
  return hash.Finish();
}

}  // namespace maskkv::arena
