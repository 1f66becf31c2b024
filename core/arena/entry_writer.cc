// SPDX-License-Identifier: Apache-2.0
#include "core/arena/entry_writer.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"

namespace maskkv::arena {
namespace {

constexpr std::int64_t kMaxExtent = std::numeric_limits<std::int32_t>::max();
// Keys, values, scales and positions of a head each start at a multiple of kEntryAlignment.
std::uint64_t MaxPaddingOfHead(const engine::EntryShape& shape) {
  return (shape.HasScales() ? 4 : 3) * (kEntryAlignment - 1);
}

std::uint32_t CodeOf(kernels::DType dtype) {
  switch (dtype) {
    case kernels::DType::kF32:
      return kDtypeF32;
    case kernels::DType::kBF16:
      return kDtypeBf16;
    case kernels::DType::kInt8:
      break;
  }
  return kDtypeInt8;
}

std::uint64_t Unsigned(std::int64_t value) { return static_cast<std::uint64_t>(value); }
std::uint32_t Short(std::int64_t value) { return static_cast<std::uint32_t>(value); }

absl::Status TooLarge(const engine::EntryShape& shape, std::int64_t max_pairs) {
  return MakeError(
      absl::StatusCode::kResourceExhausted, "ENTRY_TOO_LARGE",
      absl::StrFormat(
          "entry: expected less than 2^63 bytes, found %d layers of %d KV heads of width "
          "%d with %d pairs",
          shape.layers, shape.kv_heads, shape.head_dim, max_pairs));
}

// sum += a * b; false if that is no 63-bit number.
bool AddProduct(std::uint64_t a, std::uint64_t b, std::uint64_t& sum) {
  std::uint64_t product = 0;
  return !__builtin_mul_overflow(a, b, &product) && !__builtin_add_overflow(sum, product, &sum) &&
         sum <= Unsigned(std::numeric_limits<std::int64_t>::max());
}

absl::Status CheckMetadata(const EntryMetadata& metadata) {
  if (metadata.prompt_tokens < 0 || metadata.prompt_tokens > kMaxPromptTokens ||
      metadata.document_tokens < 0 || metadata.document_tokens > metadata.prompt_tokens ||
      metadata.masks < 0 || metadata.budget < 0 || metadata.suffix_tokens < 0 ||
      metadata.suffix_tokens > kMaxPromptTokens ||
      (metadata.suffix_tokens > 0 && metadata.masks > kMaxPromptTokens)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "entry: metadata: expected 0 <= document <= prompt tokens < 2^31, masks and budget >= 0, "
        "suffix and masks before it < 2^31, found %d, %d, %d, %d, %d",
        metadata.document_tokens, metadata.prompt_tokens, metadata.masks, metadata.budget,
        metadata.suffix_tokens));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::uint64_t> MaxEntryBytes(const engine::EntryShape& shape,
                                            std::int64_t max_pairs) {
  for (const std::int64_t extent : {shape.layers, shape.kv_heads, shape.head_dim}) {
    if (extent >= 1 && extent <= kMaxExtent && max_pairs >= 0) continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("entry: expected layers, KV heads and head width in [1, 2^31) and "
                        "max_pairs >= 0, found %d, "
                        "%d, %d, %d",
                        shape.layers, shape.kv_heads, shape.head_dim, max_pairs));
  }
  if (!(shape.rope_scale >= 1 && std::isfinite(shape.rope_scale))) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "entry: rope_scale: expected a finite number from 1, found %g", shape.rope_scale));
  }
  const std::uint64_t heads = Unsigned(shape.layers) * Unsigned(shape.kv_heads);
  // Padding: behind the extent table, behind the head table, at the end.
  std::uint64_t bytes = AlignUp(sizeof(EntryHeader)) + 3 * (kEntryAlignment - 1);
  if (!AddProduct(Unsigned(shape.layers), sizeof(ExtentRecord), bytes) ||
      !AddProduct(heads, sizeof(HeadRecord) + MaxPaddingOfHead(shape), bytes) ||
      !AddProduct(Unsigned(max_pairs), Unsigned(shape.PairBytes()), bytes)) {
    return TooLarge(shape, max_pairs);
  }
  return bytes & ~(kEntryAlignment - 1);
}

template <typename Record>
void EntryWriter::WriteRecord(std::uint64_t offset, const Record& record) {
  std::memcpy(memory_.data() + offset, &record, sizeof(record));
}

absl::Status EntryWriter::Begin(const engine::EntryShape& shape, std::int64_t max_pairs) {
  if (begun_) return absl::FailedPreconditionError("entry: begun twice");
  MASKKV_RETURN_IF_ERROR(CheckMetadata(metadata_));
  MASKKV_ASSIGN_OR_RETURN(const std::uint64_t most, MaxEntryBytes(shape, max_pairs));
  if (memory_.size() < most) {
    return MakeError(absl::StatusCode::kResourceExhausted, "ENTRY_TOO_LARGE",
                     absl::StrFormat("entry: expected at least %d bytes of memory, found %d", most,
                                     memory_.size()));
  }
  if (reinterpret_cast<std::uintptr_t>(memory_.data()) % kEntryAlignment != 0) {
    return absl::InvalidArgumentError("entry: expected memory at a multiple of 64");
  }
  begun_ = true;
  shape_ = shape;
  max_pairs_ = max_pairs;
  at_ = PlaceTables(Unsigned(shape.layers), Unsigned(shape.layers) * Unsigned(shape.kv_heads));
  used_ = at_.payload;
  std::memset(memory_.data(), 0, at_.payload);  // no header yet, and the padding of the tables
  return absl::OkStatus();
}

std::byte* EntryWriter::Place(std::uint64_t bytes) {
  const std::uint64_t offset = AlignUp(used_);
  std::memset(memory_.data() + used_, 0, offset - used_);
  used_ = offset + bytes;
  return memory_.data() + offset;
}

absl::StatusOr<std::span<const engine::HeadExtent>> EntryWriter::AllocateLayer(
    std::int64_t layer, std::span<const std::int64_t> pairs_per_head) {
  if (!begun_ || finished_) return absl::FailedPreconditionError("entry: not being written");
  if (layer != layers_allocated_ || layer >= shape_.layers) {
    return absl::InvalidArgumentError(absl::StrFormat("entry: layer: expected %d of %d, found %d",
                                                      layers_allocated_, shape_.layers, layer));
  }
  if (static_cast<std::int64_t>(pairs_per_head.size()) != shape_.kv_heads) {
    return absl::InvalidArgumentError(
        absl::StrFormat("entry: layer %d: expected %d KV heads, found %d", layer, shape_.kv_heads,
                        pairs_per_head.size()));
  }
  std::int64_t total = 0;
  for (const std::int64_t pairs : pairs_per_head) {
    if (pairs < 0 || pairs > max_pairs_ - pairs_ - total) {
      return absl::ResourceExhaustedError(
          absl::StrFormat("entry: layer %d: a head with %d pairs does not fit: %d of %d are taken",
                          layer, pairs, pairs_ + total, max_pairs_));
    }
    total += pairs;
  }
  CloseLayer();
  layer_offset_ = used_;
  extents_.clear();
  const std::uint64_t row_bytes = Unsigned(shape_.head_dim) * kernels::SizeOf(shape_.dtype);
  std::uint64_t record = at_.heads + Unsigned(layer * shape_.kv_heads) * sizeof(HeadRecord);
  const auto offset = [this](const std::byte* address) {
    return static_cast<std::uint64_t>(address - memory_.data());
  };
  for (const std::int64_t pairs : pairs_per_head) {
    std::byte* const keys = Place(Unsigned(pairs) * row_bytes);
    std::byte* const values = Place(Unsigned(pairs) * row_bytes);
    float* scales = nullptr;
    if (shape_.HasScales()) {
      scales = reinterpret_cast<float*>(Place(2 * Unsigned(pairs) * sizeof(float)));
    }
    std::byte* const positions = Place(Unsigned(pairs) * sizeof(std::int32_t));
    extents_.push_back({keys, values, reinterpret_cast<std::int32_t*>(positions), pairs, scales,
                        scales == nullptr ? nullptr : scales + pairs});
    WriteRecord(
        record,
        HeadRecord{offset(keys), offset(values), offset(positions), Unsigned(pairs),
                   scales == nullptr ? 0 : offset(reinterpret_cast<const std::byte*>(scales))});
    record += sizeof(HeadRecord);
  }
  ++layers_allocated_;
  pairs_ += total;
  return std::span<const engine::HeadExtent>(extents_);
}

void EntryWriter::CloseLayer() {
  if (layers_allocated_ == 0) return;
  (void)Place(0);
  const std::int64_t layer = layers_allocated_ - 1;
  ExtentRecord extent{};
  extent.first_layer = Short(layer);
  extent.layers = 1;
  extent.heads = Short(shape_.kv_heads);
  extent.shards = 1;
  extent.offset = layer_offset_;
  extent.bytes = used_ - layer_offset_;
  extent.checksum = Checksum(memory_.subspan(extent.offset, extent.bytes));
  WriteRecord(at_.extents + Unsigned(layer) * sizeof(ExtentRecord), extent);
}

absl::Status EntryWriter::Finish() {
  if (!begun_ || finished_) return absl::FailedPreconditionError("entry: not being written");
  if (layers_allocated_ != shape_.layers) {
    return absl::FailedPreconditionError(
        absl::StrFormat("entry: finished with %d of %d layers", layers_allocated_, shape_.layers));
  }
  CloseLayer();
  extents_.clear();
  finished_ = true;
  return absl::OkStatus();
}

absl::StatusOr<std::uint64_t> EntryWriter::Complete(double kept_mass) {
  if (!finished_) return absl::FailedPreconditionError("entry: not finished");
  if (!(kept_mass >= 0 && kept_mass <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("entry: kept mass: expected 0 to 1, found %g", kept_mass));
  }
  EntryHeader header{};
  header.magic = kEntryMagic;
  header.format_version = kEntryFormatVersion;
  header.header_bytes = sizeof(EntryHeader);
  header.layout_hash = LayoutHash();
  header.epoch = metadata_.epoch;
  header.entry_id = metadata_.entry_id;
  header.plan_generation = metadata_.plan_generation;
  header.layers = Short(shape_.layers);
  header.kv_heads = Short(shape_.kv_heads);
  header.head_dim = Short(shape_.head_dim);
  header.dtype = CodeOf(shape_.dtype);
  header.total_bytes = used_;
  header.pairs = Unsigned(pairs_);
  header.prompt_tokens = Unsigned(metadata_.prompt_tokens);
  header.document_tokens = Unsigned(metadata_.document_tokens);
  header.masks = Unsigned(metadata_.masks);
  header.suffix_tokens = Unsigned(metadata_.suffix_tokens);
  header.budget = Unsigned(metadata_.budget);
  header.kept_mass = kept_mass;
  header.rope_scale = shape_.rope_scale;
  header.extents = Short(shape_.layers);
  header.extents_offset = at_.extents;
  header.heads_offset = at_.heads;
  header.payload_offset = at_.payload;
  header.tables_checksum = Checksum(memory_.subspan(at_.extents, at_.payload - at_.extents));
  header.model_fingerprint = metadata_.model_fingerprint;
  header.prompt_digest = metadata_.prompt_digest;
  header.document_digest = metadata_.document_digest;
  header.suffix_digest = metadata_.suffix_digest;
  header.header_checksum =
      Checksum(std::as_bytes(std::span(&header, 1)).subspan(kChecksummedHeaderFrom));
  WriteRecord(0, header);
  return used_;
}

}  // namespace maskkv::arena
