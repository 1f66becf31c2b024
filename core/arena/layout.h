// SPDX-License-Identifier: Apache-2.0
//
// The bytes of one entry in shared memory (docs/shm_format.md), offsets only, little endian:
//
//   header        320 bytes: identity, shape, counts, digests, where the rest is
//   extent table  48 bytes an extent: a rectangle of layers and KV heads, its bytes and their
//                 checksum
//   head table    40 bytes a layer and KV head: offsets of keys, values, positions and scales,
//                 number of pairs
//   payload       the extents one after the other; in each, by layer and head: keys, values,
//                 scales (of int8), positions
//
// Tables, extents and arrays start at multiples of kEntryAlignment; padding is zero. EntryWriter
// writes one extent a layer. Another division of the same heads (a shard of a tensor-parallel
// group, a piece of a transfer) is another extent table, not another format.
//
// The records are plain structs over those bytes. Nothing here believes them: ValidateEntry
// (entry_index.h) does the checking.
#ifndef MASKKV_CORE_ARENA_LAYOUT_H_
#define MASKKV_CORE_ARENA_LAYOUT_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "core/arena/handle.h"

namespace maskkv::arena {

static_assert(std::endian::native == std::endian::little, "the format is little endian");

inline constexpr std::uint64_t kEntryMagic = 0x59524E45564B534D;  // "MSKVENRY"
inline constexpr std::uint32_t kEntryFormatVersion = 4;
inline constexpr std::uint64_t kEntryAlignment = 64;
// Memory is given in units of at least this. An entry's memory is shorter than a page past its end.
inline constexpr std::uint64_t kEntryPage = 4096;
// Positions are 32-bit.
inline constexpr std::int64_t kMaxPromptTokens = std::numeric_limits<std::int32_t>::max();

struct EntryHeader {
  // Which format. Compared, therefore not under the checksum.
  std::uint64_t magic;
  std::uint32_t format_version;
  std::uint32_t header_bytes;
  std::uint64_t layout_hash;
  std::uint64_t header_checksum;  // XXH3-64 of the header from the next field on
  // Identity: which entry, and which plan asked for it.
  std::uint64_t epoch;
  std::uint64_t entry_id;
  std::uint64_t plan_generation;
  std::uint64_t reserved0;  // 0
  // Content, from here to the entry's end.
  std::uint32_t layers;
  std::uint32_t kv_heads;
  std::uint32_t head_dim;
  std::uint32_t dtype;        // of keys and values: kDtypeF32, kDtypeBf16, kDtypeInt8
  std::uint64_t total_bytes;  // from the first byte of the header to the last of the payload
  std::uint64_t pairs;        // over all layers and heads
  std::uint64_t prompt_tokens;
  std::uint64_t document_tokens;
  std::uint64_t masks;
  std::uint64_t budget;
  double kept_mass;
  std::uint32_t extents;
  std::uint32_t reserved1;  // 0
  std::uint64_t extents_offset;
  std::uint64_t heads_offset;
  std::uint64_t payload_offset;
  std::uint64_t tables_checksum;  // XXH3-64 of the bytes from extents_offset to payload_offset
  Digest model_fingerprint;
  Digest prompt_digest;
  Digest document_digest;
  double rope_scale;  // the keys were rotated with the model's rope_theta times this; >= 1
  std::uint64_t suffix_tokens;  // of the prompt, at the positions after the masks
  Digest suffix_digest;
};

struct ExtentRecord {
  std::uint32_t first_layer;
  std::uint32_t layers;
  std::uint32_t first_head;
  std::uint32_t heads;
  std::uint32_t shard;   // of a tensor-parallel group: 0 to shards - 1
  std::uint32_t shards;  // the same in every extent; 1: no group
  std::uint64_t offset;
  std::uint64_t bytes;
  std::uint64_t checksum;  // XXH3-64 of those bytes
};

struct HeadRecord {
  std::uint64_t keys;    // (pairs, head_dim) of dtype, after RoPE
  std::uint64_t values;  // (pairs, head_dim) of dtype
  // (pairs) int32, strictly ascending, in [0, prompt_tokens) or, of the suffix, in
  // [prompt_tokens + masks, prompt_tokens + masks + suffix_tokens)
  std::uint64_t positions;
  std::uint64_t pairs;
  // (2, pairs) f32: of the keys, then of the values; each a finite number from 2^-126. 0 unless
  // dtype is int8.
  std::uint64_t scales;
};

inline constexpr std::uint32_t kDtypeF32 = 1;
inline constexpr std::uint32_t kDtypeBf16 = 2;
inline constexpr std::uint32_t kDtypeInt8 = 3;

inline constexpr std::size_t kChecksummedHeaderFrom = offsetof(EntryHeader, epoch);
inline constexpr std::size_t kContentFrom = offsetof(EntryHeader, layers);

static_assert(sizeof(EntryHeader) == 320 && alignof(EntryHeader) == 8);
static_assert(sizeof(ExtentRecord) == 48 && alignof(ExtentRecord) == 8);
static_assert(sizeof(HeadRecord) == 40 && alignof(HeadRecord) == 8);
static_assert(kChecksummedHeaderFrom == 32 && kContentFrom == 64);
static_assert(std::is_trivially_copyable_v<EntryHeader> && std::is_standard_layout_v<EntryHeader>);

// The format in words that a program can compare: "RECORD OFFSET SIZE FIELD" a line, then the rules
// that decide where payload lies. A change of the bytes is a change of this text.
std::string_view LayoutDescription();

// FNV-1a of LayoutDescription: readers and writers of another one are refused.
std::uint64_t LayoutHash();
std::string LayoutHashText();  // 16 hexadecimal digits

std::uint64_t Checksum(std::span<const std::byte> bytes);  // XXH3-64, seed 0

// The least multiple of kEntryAlignment that is not below `bytes`. REQUIRES: bytes <= 2^63.
constexpr std::uint64_t AlignUp(std::uint64_t bytes) {
  return (bytes + kEntryAlignment - 1) & ~(kEntryAlignment - 1);
}

// Where tables and payload of an entry start. REQUIRES: extents <= 2^32, heads <= 2^56.
struct TableOffsets {
  std::uint64_t extents = 0, heads = 0, payload = 0;
};
constexpr TableOffsets PlaceTables(std::uint64_t extents, std::uint64_t heads) {
  TableOffsets at;
  at.extents = AlignUp(sizeof(EntryHeader));
  at.heads = AlignUp(at.extents + extents * sizeof(ExtentRecord));
  at.payload = AlignUp(at.heads + heads * sizeof(HeadRecord));
  return at;
}

}  // namespace maskkv::arena

#endif  // MASKKV_CORE_ARENA_LAYOUT_H_
