// SPDX-License-Identifier: Apache-2.0
#include "core/arena/entry_index.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"

namespace maskkv::arena {
namespace {

constexpr std::uint64_t kMaxInt64 = std::numeric_limits<std::int64_t>::max();
constexpr std::uint64_t kMaxInt32 = std::numeric_limits<std::int32_t>::max();

absl::Status Refuse(absl::StatusCode code, std::string_view reason, std::string_view field,
                    std::string_view expected, std::string_view found) {
  return MakeError(code, reason,
                   absl::StrFormat("entry: %s: expected %s, found %s", field, expected, found));
}

absl::Status Bad(std::string_view field, std::string_view expected, std::uint64_t found) {
  return Refuse(absl::StatusCode::kDataLoss, "BAD_HEADER", field, expected, std::to_string(found));
}

absl::Status CheckChecksum(std::string_view what, std::uint64_t expected,
                           std::span<const std::byte> bytes) {
  const std::uint64_t found = Checksum(bytes);
  if (found == expected) return absl::OkStatus();
  return Refuse(absl::StatusCode::kDataLoss, "CHECKSUM", std::string(what) + " checksum",
                absl::StrFormat("%016x", expected), absl::StrFormat("%016x", found));
}

absl::Status CheckSize(std::span<const std::byte> memory, const EntryExpectation& expectation) {
  if (reinterpret_cast<std::uintptr_t>(memory.data()) % kEntryAlignment != 0) {
    return absl::InvalidArgumentError("entry: memory: expected an address at a multiple of 64");
  }
  if (memory.size() < sizeof(EntryHeader) || memory.size() > kMaxInt64) {
    return Bad("memory", absl::StrFormat("%d bytes or more", sizeof(EntryHeader)), memory.size());
  }
  if (const std::uint64_t told = expectation.bytes;
      told != 0 && (told - 1) / kEntryPage != (memory.size() - 1) / kEntryPage) {
    return Bad("memory", absl::StrFormat("%d bytes in whole pages", told), memory.size());
  }
  return absl::OkStatus();
}

std::optional<kernels::DType> DTypeOf(std::uint32_t code) {
  switch (code) {
    case kDtypeF32:
      return kernels::DType::kF32;
    case kDtypeBf16:
      return kernels::DType::kBF16;
    case kDtypeInt8:
      return kernels::DType::kInt8;
    default:
      return std::nullopt;
  }
}

absl::Status CheckFormat(const EntryHeader& header) {
  if (header.magic != kEntryMagic) {
    return Bad("magic", std::to_string(kEntryMagic), header.magic);
  }
  if (header.format_version != kEntryFormatVersion || header.header_bytes != sizeof(EntryHeader) ||
      header.layout_hash != LayoutHash()) {
    return Refuse(absl::StatusCode::kFailedPrecondition, "LAYOUT_MISMATCH", "layout",
                  absl::StrFormat("version %d, %d header bytes, %s", kEntryFormatVersion,
                                  sizeof(EntryHeader), LayoutHashText()),
                  absl::StrFormat("version %d, %d header bytes, %016x", header.format_version,
                                  header.header_bytes, header.layout_hash));
  }
  return CheckChecksum("header", header.header_checksum,
                       std::as_bytes(std::span(&header, 1)).subspan(kChecksummedHeaderFrom));
}

absl::Status CheckIdentity(const EntryHeader& header, const EntryExpectation& expectation) {
  if (header.epoch != expectation.epoch || header.entry_id != expectation.entry_id) {
    return Refuse(absl::StatusCode::kAborted, "EPOCH_MOVED", "identity",
                  "the epoch and id of its handle", "others");
  }
  if (expectation.model_fingerprint && header.model_fingerprint != *expectation.model_fingerprint) {
    return Refuse(absl::StatusCode::kFailedPrecondition, "MODEL_MISMATCH", "model",
                  "the fingerprint of the model that is served", "another");
  }
  return absl::OkStatus();
}

absl::Status CheckValues(const EntryHeader& header, std::uint64_t memory_bytes) {
  const std::uint64_t total = header.total_bytes;
  if (total > memory_bytes || memory_bytes - total >= kEntryPage || total % kEntryAlignment != 0) {
    return Bad("total_bytes",
               absl::StrFormat("a multiple of 64 within a page below %d", memory_bytes), total);
  }
  for (const auto& [field, value] : {std::pair{"layers", header.layers},
                                     {"kv_heads", header.kv_heads},
                                     {"head_dim", header.head_dim}}) {
    if (value < 1 || value > kMaxInt32) return Bad(field, "1 to 2^31 - 1", value);
  }
  if (!DTypeOf(header.dtype)) return Bad("dtype", "1, 2 or 3", header.dtype);
  const auto prompt_tokens = static_cast<std::uint64_t>(kMaxPromptTokens);
  if (header.prompt_tokens > prompt_tokens) {
    return Bad("prompt_tokens", "0 to 2^31 - 1", header.prompt_tokens);
  }
  if (header.document_tokens > header.prompt_tokens) {
    return Bad("document_tokens", absl::StrFormat("at most %d", header.prompt_tokens),
               header.document_tokens);
  }
  if (header.masks > kMaxInt64) return Bad("masks", "a 63-bit number", header.masks);
  if (header.suffix_tokens > prompt_tokens) {
    return Bad("suffix_tokens", "0 to 2^31 - 1", header.suffix_tokens);
  }
  if (header.suffix_tokens > 0 && header.masks > prompt_tokens) {  // positions are 32-bit
    return Bad("masks", "at most 2^31 - 1 before a suffix", header.masks);
  }
  if (header.budget > kMaxInt64) return Bad("budget", "a 63-bit number", header.budget);
  if (!(header.kept_mass >= 0 && header.kept_mass <= 1)) {
    return Refuse(absl::StatusCode::kDataLoss, "BAD_HEADER", "kept_mass", "0 to 1",
                  absl::StrFormat("%g", header.kept_mass));
  }
  if (!(header.rope_scale >= 1 && std::isfinite(header.rope_scale))) {
    return Refuse(absl::StatusCode::kDataLoss, "BAD_HEADER", "rope_scale", "a finite number from 1",
                  absl::StrFormat("%g", header.rope_scale));
  }
  if (header.reserved0 != 0 || header.reserved1 != 0) return Bad("reserved", "0", 1);
  return absl::OkStatus();
}

// The tables must lie where PlaceTables puts them: one place less to disagree about.
absl::Status CheckTables(std::span<const std::byte> memory, const EntryHeader& header) {
  const std::uint64_t heads = std::uint64_t{header.layers} * header.kv_heads;
  if (heads > header.total_bytes / sizeof(HeadRecord)) {
    return Bad("layers * kv_heads", "a head table within total_bytes", heads);
  }
  if (header.extents < 1 || header.extents > heads) {
    return Bad("extents", absl::StrFormat("1 to %d", heads), header.extents);
  }
  const TableOffsets at = PlaceTables(header.extents, heads);
  for (const auto& [field, expected, found] :
       {std::tuple{"extents_offset", at.extents, header.extents_offset},
        {"heads_offset", at.heads, header.heads_offset},
        {"payload_offset", at.payload, header.payload_offset}}) {
    if (expected != found) return Bad(field, std::to_string(expected), found);
  }
  if (at.payload > header.total_bytes) {
    return Bad("payload_offset", absl::StrFormat("at most %d", header.total_bytes), at.payload);
  }
  return CheckChecksum("tables", header.tables_checksum,
                       memory.subspan(at.extents, at.payload - at.extents));
}

template <typename Record>
std::vector<Record> CopyRecords(std::span<const std::byte> memory, std::uint64_t offset,
                                std::uint64_t count) {
  std::vector<Record> records(count);
  std::memcpy(records.data(), memory.data() + offset, count * sizeof(Record));
  return records;
}

// Checks extents and heads together: extents tile the payload and the grid of layers and heads, and
// the arrays of an extent's heads lie in it one after the other.
class TableCheck {
 public:
  TableCheck(const EntryHeader& header, const EntryIndex& index)
      : header_(header),
        index_(index),
        row_bytes_(std::uint64_t{header.head_dim} * kernels::SizeOf(index.shape.dtype)),
        seen_(index.heads.size()) {}

  absl::Status Run() {
    std::uint64_t next = header_.payload_offset;
    for (const ExtentRecord& extent : index_.extents) {
      MASKKV_RETURN_IF_ERROR(CheckExtent(extent, next));
      next += extent.bytes;
      MASKKV_RETURN_IF_ERROR(CheckHeads(extent));
    }
    if (next != header_.total_bytes) {
      return Bad("extents", absl::StrFormat("the payload's end at %d", header_.total_bytes), next);
    }
    if (heads_ != seen_.size()) {
      return Bad("extents", absl::StrFormat("%d heads", seen_.size()), heads_);
    }
    if (pairs_ != header_.pairs) return Bad("pairs", std::to_string(pairs_), header_.pairs);
    return absl::OkStatus();
  }

 private:
  absl::Status CheckExtent(const ExtentRecord& extent, std::uint64_t next) const {
    if (extent.layers < 1 || extent.first_layer >= header_.layers ||
        extent.layers > header_.layers - extent.first_layer) {
      return Bad("extent layers", absl::StrFormat("1 or more, below layer %d", header_.layers),
                 std::uint64_t{extent.first_layer} + extent.layers);
    }
    if (extent.heads < 1 || extent.first_head >= header_.kv_heads ||
        extent.heads > header_.kv_heads - extent.first_head) {
      return Bad("extent heads", absl::StrFormat("1 or more, below head %d", header_.kv_heads),
                 std::uint64_t{extent.first_head} + extent.heads);
    }
    if (extent.shards < 1 || extent.shards > header_.kv_heads ||
        extent.shards != index_.extents.front().shards || extent.shard >= extent.shards) {
      return Bad("extent shard",
                 absl::StrFormat("below %d of the same number of shards", extent.shards),
                 extent.shard);
    }
    if (extent.offset != next) return Bad("extent offset", std::to_string(next), extent.offset);
    if (extent.bytes > header_.total_bytes - next || extent.bytes % kEntryAlignment != 0) {
      return Bad("extent bytes",
                 absl::StrFormat("a multiple of 64 up to %d", header_.total_bytes - next),
                 extent.bytes);
    }
    return absl::OkStatus();
  }

  absl::Status CheckHeads(const ExtentRecord& extent) {
    std::uint64_t next = extent.offset;
    const std::uint64_t end = extent.offset + extent.bytes;
    for (std::uint64_t layer = extent.first_layer; layer < extent.first_layer + extent.layers;
         ++layer) {
      for (std::uint64_t head = extent.first_head; head < extent.first_head + extent.heads;
           ++head) {
        const std::size_t i = layer * header_.kv_heads + head;
        if (seen_[i]) return Bad("extents", "every head once", i);
        seen_[i] = true;
        ++heads_;
        const HeadRecord& record = index_.heads[i];
        const std::uint64_t most = header_.prompt_tokens + header_.suffix_tokens;
        if (record.pairs > most) {  // positions are distinct
          return Bad("head pairs", absl::StrFormat("at most %d", most), record.pairs);
        }
        MASKKV_RETURN_IF_ERROR(
            CheckArray("keys", record.keys, record.pairs, row_bytes_, next, end));
        MASKKV_RETURN_IF_ERROR(
            CheckArray("values", record.values, record.pairs, row_bytes_, next, end));
        if (index_.shape.HasScales()) {
          MASKKV_RETURN_IF_ERROR(
              CheckArray("scales", record.scales, record.pairs, 2 * sizeof(float), next, end));
        } else if (record.scales != 0) {
          return Bad("head scales", "0 where dtype has none", record.scales);
        }
        MASKKV_RETURN_IF_ERROR(CheckArray("positions", record.positions, record.pairs,
                                          sizeof(std::int32_t), next, end));
        pairs_ += record.pairs;
      }
    }
    return absl::OkStatus();
  }

  // The array lies in [next, end), aligned; next becomes its end.
  static absl::Status CheckArray(std::string_view what, std::uint64_t offset, std::uint64_t rows,
                                 std::uint64_t row_bytes, std::uint64_t& next, std::uint64_t end) {
    if (offset % kEntryAlignment != 0 || offset < next || offset > end) {
      return Bad(std::string("head ") + std::string(what),
                 absl::StrFormat("a multiple of 64 in %d to %d", next, end), offset);
    }
    if (rows > (end - offset) / row_bytes) {
      return Bad("head pairs", absl::StrFormat("%s that end before %d", what, end), rows);
    }
    next = offset + rows * row_bytes;
    return absl::OkStatus();
  }

  const EntryHeader& header_;
  const EntryIndex& index_;
  const std::uint64_t row_bytes_;
  std::vector<bool> seen_;
  std::uint64_t heads_ = 0;
  std::uint64_t pairs_ = 0;
};

absl::Status CheckPositions(std::span<const std::byte> memory, const EntryIndex& index) {
  const EntryMetadata& metadata = index.metadata;
  const std::int64_t before = metadata.prompt_tokens, suffix = metadata.suffix_tokens;
  const auto of_prompt = [&](std::int64_t position) {
    if (position < before || suffix == 0) return position < before;
    return position - before >= metadata.masks && position - before - metadata.masks < suffix;
  };
  for (const HeadRecord& head : index.heads) {
    const std::span positions(reinterpret_cast<const std::int32_t*>(memory.data() + head.positions),
                              head.pairs);
    std::int64_t last = -1;
    for (const std::int32_t position : positions) {
      if (position <= last || !of_prompt(position)) {
        return Refuse(absl::StatusCode::kDataLoss, "BAD_HEADER", "positions",
                      "ascending ones within the prompt", "others");
      }
      last = position;
    }
  }
  return absl::OkStatus();
}

// Whoever reads int8 pairs multiplies by them.
absl::Status CheckScales(std::span<const std::byte> memory, const EntryIndex& index) {
  if (!index.shape.HasScales()) return absl::OkStatus();
  for (const HeadRecord& head : index.heads) {
    const std::span scales(reinterpret_cast<const float*>(memory.data() + head.scales),
                           2 * head.pairs);
    for (const float scale : scales) {
      if (scale >= kernels::kLeastScale && std::isfinite(scale)) continue;  // false for NaN
      return Refuse(absl::StatusCode::kDataLoss, "BAD_HEADER", "scales",
                    "finite numbers from 2^-126", absl::StrFormat("%g", scale));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPayload(std::span<const std::byte> memory, const EntryIndex& index,
                          bool verify_checksums) {
  if (verify_checksums) {
    for (const ExtentRecord& extent : index.extents) {
      MASKKV_RETURN_IF_ERROR(
          CheckChecksum("extent", extent.checksum, memory.subspan(extent.offset, extent.bytes)));
    }
    const auto rest = memory.subspan(index.total_bytes);
    if (std::any_of(rest.begin(), rest.end(),
                    [](std::byte byte) { return byte != std::byte{0}; })) {
      return Bad("rest of the last page", "0", 1);
    }
  }
  MASKKV_RETURN_IF_ERROR(CheckScales(memory, index));
  return CheckPositions(memory, index);
}

EntryIndex IndexOf(std::span<const std::byte> memory, const EntryHeader& header) {
  EntryIndex index;
  index.metadata = {.epoch = header.epoch,
                    .entry_id = header.entry_id,
                    .model_fingerprint = header.model_fingerprint,
                    .prompt_digest = header.prompt_digest,
                    .document_digest = header.document_digest,
                    .suffix_digest = header.suffix_digest,
                    .prompt_tokens = static_cast<std::int64_t>(header.prompt_tokens),
                    .document_tokens = static_cast<std::int64_t>(header.document_tokens),
                    .masks = static_cast<std::int64_t>(header.masks),
                    .suffix_tokens = static_cast<std::int64_t>(header.suffix_tokens),
                    .plan_generation = header.plan_generation,
                    .budget = static_cast<std::int64_t>(header.budget),
                    .kept_mass = header.kept_mass};
  index.shape = {.layers = header.layers,
                 .kv_heads = header.kv_heads,
                 .head_dim = header.head_dim,
                 .dtype = DTypeOf(header.dtype).value(),
                 .rope_scale = header.rope_scale};
  index.total_bytes = header.total_bytes;
  index.extents = CopyRecords<ExtentRecord>(memory, header.extents_offset, header.extents);
  index.heads = CopyRecords<HeadRecord>(memory, header.heads_offset,
                                        std::uint64_t{header.layers} * header.kv_heads);
  return index;
}

}  // namespace

absl::StatusOr<EntryIndex> ValidateEntry(std::span<const std::byte> memory,
                                         const EntryExpectation& expectation) {
  MASKKV_RETURN_IF_ERROR(CheckSize(memory, expectation));
  EntryHeader header;
  std::memcpy(&header, memory.data(), sizeof(header));
  MASKKV_RETURN_IF_ERROR(CheckFormat(header));
  MASKKV_RETURN_IF_ERROR(CheckIdentity(header, expectation));
  MASKKV_RETURN_IF_ERROR(CheckValues(header, memory.size()));
  MASKKV_RETURN_IF_ERROR(CheckTables(memory, header));
  EntryIndex index = IndexOf(memory, header);
  MASKKV_RETURN_IF_ERROR(TableCheck(header, index).Run());
  // Every pair has its bytes in the memory, so neither number is larger than that.
  index.pairs = static_cast<std::int64_t>(header.pairs);
  index.payload_bytes = index.pairs * index.shape.PairBytes();
  MASKKV_RETURN_IF_ERROR(CheckPayload(memory, index, expectation.verify_checksums));
  return index;
}

}  // namespace maskkv::arena
