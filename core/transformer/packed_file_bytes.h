// SPDX-License-Identifier: Apache-2.0
//
// The first bytes of a packed file, shared by its reader and its writer. Little endian; then come
// the description, a checksum a chunk (XXH3-64) and, from a page's start on, the sections, each
// from a page's start on.
#ifndef MASKKV_CORE_TRANSFORMER_PACKED_FILE_BYTES_H_
#define MASKKV_CORE_TRANSFORMER_PACKED_FILE_BYTES_H_

#include <xxhash.h>

#include <bit>
#include <cstdint>
#include <span>
#include <string_view>

namespace maskkv::transformer {

static_assert(std::endian::native == std::endian::little);

inline constexpr std::int64_t kPackedPage = 4096;
inline constexpr std::uint64_t kPackedMagic = 0x31444b434150564dU;  // "MVPACKD1"
inline constexpr std::uint64_t kPackedVersion = 1;

struct PackedHeader {
  std::uint64_t magic;
  std::uint64_t version;
  std::uint64_t file_bytes;
  std::uint64_t description_bytes;
  std::uint64_t chunks;
  std::uint64_t payload_offset;
  unsigned char source_stamp[32];
  unsigned char source_content[16];
  std::uint64_t checksum;  // of the header with 0 here, the description and the chunks' checksums
};
static_assert(sizeof(PackedHeader) == 104);

inline std::uint64_t PackedHeaderChecksum(PackedHeader header, std::string_view description,
                                          std::span<const std::uint64_t> checksums) {
  header.checksum = 0;
  const std::uint64_t parts[] = {
      XXH3_64bits(&header, sizeof(header)),
      XXH3_64bits(description.data(), description.size()),
      XXH3_64bits(checksums.data(), checksums.size_bytes()),
  };
  return XXH3_64bits(parts, sizeof(parts));
}

}  // namespace maskkv::transformer

#endif  // MASKKV_CORE_TRANSFORMER_PACKED_FILE_BYTES_H_
