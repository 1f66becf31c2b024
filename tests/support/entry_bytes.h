// SPDX-License-Identifier: Apache-2.0
//
// Entries in the shared-memory format for tests: small ones with random content, and the means to
// damage them on purpose.
#ifndef MASKKV_TESTS_SUPPORT_ENTRY_BYTES_H_
#define MASKKV_TESTS_SUPPORT_ENTRY_BYTES_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "core/arena/entry_index.h"
#include "core/arena/entry_writer.h"
#include "core/arena/layout.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "kernels/base/aligned_buffer.h"

namespace maskkv::testing {

struct EntryContent {
  engine::EntryShape shape{.layers = 3, .kv_heads = 2, .head_dim = 5};
  std::vector<std::int64_t> pairs;  // (layers * kv_heads)
  arena::EntryMetadata metadata;

  std::int64_t Pairs() const {
    std::int64_t sum = 0;
    for (const std::int64_t count : pairs) sum += count;
    return sum;
  }
};

// 0 to 6 pairs a head of a prompt of 40 tokens.
inline EntryContent RandomContent(std::mt19937_64& random) {
  EntryContent content;
  content.shape.layers = static_cast<std::int64_t>(1 + random() % 3);
  content.shape.kv_heads = static_cast<std::int64_t>(1 + random() % 3);
  content.shape.head_dim = static_cast<std::int64_t>(1 + random() % 9);
  content.shape.dtype = static_cast<kernels::DType>(random() % 3);
  content.shape.rope_scale = random() % 2 == 0 ? 1 : 1 + static_cast<double>(random() % 100) / 8;
  for (std::int64_t i = 0; i < content.shape.layers * content.shape.kv_heads; ++i) {
    content.pairs.push_back(static_cast<std::int64_t>(random() % 7));
  }
  content.metadata.epoch = random();
  content.metadata.entry_id = random();
  content.metadata.plan_generation = random() % 100;
  content.metadata.prompt_tokens = 40;
  content.metadata.document_tokens = 30;
  content.metadata.masks = 8;
  content.metadata.suffix_tokens = static_cast<std::int64_t>(random() % 9);
  content.metadata.budget = 4;
  content.metadata.kept_mass = 0.75;
  for (arena::Digest* digest :
       {&content.metadata.model_fingerprint, &content.metadata.prompt_digest,
        &content.metadata.document_digest, &content.metadata.suffix_digest}) {
    for (std::byte& byte : *digest) byte = static_cast<std::byte>(random());
  }
  return content;
}

// Fills the extents of every layer with random bytes, good scales and ascending positions.
inline absl::Status WriteContent(const EntryContent& content, std::mt19937_64& random,
                                 engine::KvSink& sink) {
  const engine::EntryShape& shape = content.shape;
  MASKKV_RETURN_IF_ERROR(sink.Begin(shape, content.Pairs()));
  const std::size_t row = static_cast<std::size_t>(shape.head_dim) * kernels::SizeOf(shape.dtype);
  for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
    const auto counts = std::span(content.pairs)
                            .subspan(static_cast<std::size_t>(layer * shape.kv_heads),
                                     static_cast<std::size_t>(shape.kv_heads));
    MASKKV_ASSIGN_OR_RETURN(const auto extents, sink.AllocateLayer(layer, counts));
    for (const engine::HeadExtent& extent : extents) {
      for (std::size_t i = 0; i < static_cast<std::size_t>(extent.pairs) * row; ++i) {
        extent.keys[i] = static_cast<std::byte>(random());
        extent.values[i] = static_cast<std::byte>(random());
      }
      for (std::int64_t i = 0; i < extent.pairs; ++i) {
        if (shape.HasScales()) extent.key_scales[i] = 0.25F, extent.value_scales[i] = 3.0F;
        extent.positions[i] =
            static_cast<std::int32_t>(5 * i + static_cast<std::int64_t>(random() % 5));
      }
    }
  }
  return sink.Finish();
}

// An entry in memory of its own, without the rest of a page behind it.
class EntryBytes {
 public:
  explicit EntryBytes(std::span<const std::byte> bytes)
      : memory_(static_cast<std::int64_t>(bytes.size())) {
    std::ranges::copy(bytes, memory_.data());
  }
  EntryBytes(const EntryContent& content, std::mt19937_64& random) {
    const auto most = arena::MaxEntryBytes(content.shape, content.Pairs());
    MASKKV_CHECK(most.ok(), "a small entry");
    memory_.Resize(static_cast<std::int64_t>(*most));
    for (std::byte& byte : memory_.span()) byte = static_cast<std::byte>(random());
    arena::EntryWriter writer(memory_.span(), content.metadata);
    MASKKV_CHECK(WriteContent(content, random, writer).ok(), "content that fits");
    const auto used = writer.Complete(content.metadata.kept_mass);
    MASKKV_CHECK(used.ok() && *used <= *most, "no more than the most");
    memory_.Resize(static_cast<std::int64_t>(*used));
    expectation_ = {.epoch = content.metadata.epoch,
                    .entry_id = content.metadata.entry_id,
                    .bytes = *used,
                    .model_fingerprint = content.metadata.model_fingerprint};
  }

  std::span<std::byte> bytes() { return memory_.span(); }
  const arena::EntryExpectation& expectation() const { return expectation_; }
  arena::EntryHeader& header() { return At<arena::EntryHeader>(0); }
  arena::ExtentRecord& extent(std::uint64_t i) {
    return At<arena::ExtentRecord>(header().extents_offset + i * sizeof(arena::ExtentRecord));
  }
  arena::HeadRecord& head(std::uint64_t i) {
    return At<arena::HeadRecord>(header().heads_offset + i * sizeof(arena::HeadRecord));
  }
  template <typename T>
  T& At(std::uint64_t offset) {
    MASKKV_CHECK(offset + sizeof(T) <= bytes().size(), "a record of this entry");
    return *reinterpret_cast<T*>(bytes().data() + offset);
  }

  // Makes every checksum right again, as far as what it covers lies in the memory, so that a damage
  // reaches the check behind it. Never reads outside.
  void FixChecksums() {
    const std::uint64_t size = bytes().size();
    if (size < sizeof(arena::EntryHeader)) return;
    arena::EntryHeader& head = header();
    const std::uint64_t first = head.extents_offset;
    const bool behind = first >= sizeof(arena::EntryHeader) && first <= size && first % 8 == 0;
    for (std::uint64_t i = 0; behind && i < head.extents; ++i) {
      if ((i + 1) * sizeof(arena::ExtentRecord) > size - first) break;
      arena::ExtentRecord& record = extent(i);
      if (record.offset <= size && record.bytes <= size - record.offset) {
        record.checksum = arena::Checksum(bytes().subspan(record.offset, record.bytes));
      }
    }
    if (first <= head.payload_offset && head.payload_offset <= size) {
      head.tables_checksum = arena::Checksum(bytes().subspan(first, head.payload_offset - first));
    }
    head.header_checksum = arena::Checksum(
        bytes().first(sizeof(arena::EntryHeader)).subspan(arena::kChecksummedHeaderFrom));
  }

 private:
  kernels::AlignedBuffer<std::byte> memory_;
  arena::EntryExpectation expectation_;
};

// What ValidateEntry promises of an index it returns, whatever the bytes were.
inline void CheckIndex(std::span<const std::byte> memory, const arena::EntryIndex& index) {
  const std::uint64_t row =
      static_cast<std::uint64_t>(index.shape.head_dim) * kernels::SizeOf(index.shape.dtype);
  MASKKV_CHECK(
      index.shape.layers * index.shape.kv_heads == static_cast<std::int64_t>(index.heads.size()),
      "a record a head");
  const auto inside = [&](std::uint64_t offset, std::uint64_t bytes) {
    return offset % 64 == 0 && offset <= memory.size() && bytes <= memory.size() - offset;
  };
  std::uint64_t pairs = 0;
  for (const arena::HeadRecord& head : index.heads) {
    MASKKV_CHECK(head.pairs <= memory.size() / row, "pairs have bytes");
    MASKKV_CHECK(inside(head.keys, head.pairs * row), "keys lie inside");
    MASKKV_CHECK(inside(head.values, head.pairs * row), "values lie inside");
    MASKKV_CHECK(inside(head.positions, head.pairs * 4), "positions lie inside");
    const std::uint64_t scales = index.shape.HasScales() ? 2 * head.pairs : 0;
    MASKKV_CHECK(inside(head.scales, 4 * scales), "scales lie inside");
    for (std::uint64_t i = 0; i < scales; ++i) {
      const float scale = reinterpret_cast<const float*>(memory.data() + head.scales)[i];
      MASKKV_CHECK(std::isnormal(scale) && scale > 0, "scales are good for a product");
    }
    std::int64_t last = -1;
    for (std::uint64_t i = 0; i < head.pairs; ++i) {
      std::int32_t position = 0;
      std::memcpy(&position, memory.data() + head.positions + 4 * i, 4);
      MASKKV_CHECK(position > last, "ascending");
      const arena::EntryMetadata& metadata = index.metadata;
      MASKKV_CHECK(
          position < metadata.prompt_tokens ||
              (metadata.suffix_tokens > 0 && position >= metadata.prompt_tokens + metadata.masks &&
               position < metadata.prompt_tokens + metadata.masks + metadata.suffix_tokens),
          "within the prompt");
      last = position;
    }
    pairs += head.pairs;
  }
  MASKKV_CHECK(static_cast<std::int64_t>(pairs) == index.pairs, "pairs are counted");
  MASKKV_CHECK(index.payload_bytes == index.pairs * index.shape.PairBytes(), "bytes follow");
}

}  // namespace maskkv::testing

#endif  // MASKKV_TESTS_SUPPORT_ENTRY_BYTES_H_
