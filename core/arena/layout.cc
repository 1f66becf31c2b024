// SPDX-License-Identifier: Apache-2.0
#include "core/arena/layout.h"

#include <xxhash.h>

#include "absl/strings/str_format.h"

namespace maskkv::arena {
namespace {

// layout_test.cc compares every line with the structs, docs/shm_format.md with every line.
constexpr std::string_view kDescription =
    "maskkv entry 4, little endian\n"
    "header 0 8 magic\n"
    "header 8 4 format_version\n"
    "header 12 4 header_bytes\n"
    "header 16 8 layout_hash\n"
    "header 24 8 header_checksum\n"
    "header 32 8 epoch\n"
    "header 40 8 entry_id\n"
    "header 48 8 plan_generation\n"
    "header 56 8 reserved0\n"
    "header 64 4 layers\n"
    "header 68 4 kv_heads\n"
    "header 72 4 head_dim\n"
    "header 76 4 dtype\n"
    "header 80 8 total_bytes\n"
    "header 88 8 pairs\n"
    "header 96 8 prompt_tokens\n"
    "header 104 8 document_tokens\n"
    "header 112 8 masks\n"
    "header 120 8 budget\n"
    "header 128 8 kept_mass\n"
    "header 136 4 extents\n"
    "header 140 4 reserved1\n"
    "header 144 8 extents_offset\n"
    "header 152 8 heads_offset\n"
    "header 160 8 payload_offset\n"
    "header 168 8 tables_checksum\n"
    "header 176 32 model_fingerprint\n"
    "header 208 32 prompt_digest\n"
    "header 240 32 document_digest\n"
    "header 272 8 rope_scale\n"
    "header 280 8 suffix_tokens\n"
    "header 288 32 suffix_digest\n"
    "extent 0 4 first_layer\n"
    "extent 4 4 layers\n"
    "extent 8 4 first_head\n"
    "extent 12 4 heads\n"
    "extent 16 4 shard\n"
    "extent 20 4 shards\n"
    "extent 24 8 offset\n"
    "extent 32 8 bytes\n"
    "extent 40 8 checksum\n"
    "head 0 8 keys\n"
    "head 8 8 values\n"
    "head 16 8 positions\n"
    "head 24 8 pairs\n"
    "head 32 8 scales\n"
    "dtype 1 f32\n"
    "dtype 2 bf16\n"
    "dtype 3 int8\n"
    "checksum XXH3-64 seed 0\n"
    "align 64\n"
    "extents tile the payload, in it by layer, head: keys, values, scales, positions\n"
    "scales of int8 alone, f32: keys, then values; read as int8 * scale\n"
    "keys after RoPE, positions int32 strictly ascending\n";

constexpr std::uint64_t Fnv1a(std::string_view text) {
  std::uint64_t hash = 0xCBF29CE484222325U;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  }
  return hash;
}

constexpr std::uint64_t kLayoutHash = Fnv1a(kDescription);

}  // namespace

std::string_view LayoutDescription() { return kDescription; }

std::uint64_t LayoutHash() { return kLayoutHash; }

std::string LayoutHashText() { return absl::StrFormat("%016x", kLayoutHash); }

std::uint64_t Checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

}  // namespace maskkv::arena
