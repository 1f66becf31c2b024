// SPDX-License-Identifier: Apache-2.0
#include "core/model/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status_macros.h"
#include "core/model/json_reader.h"

namespace maskkv::model {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are read in place");

constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kMaxHeaderBytes = 100'000'000;  // the limit of the reference implementation
constexpr std::string_view kMetadata = "__metadata__";
constexpr std::int64_t kMaxInt64 = std::numeric_limits<std::int64_t>::max();

struct TypeRow {
  TensorType type;
  std::string_view name;
  std::int64_t size;
};
constexpr std::array<TypeRow, 15> kTypes = {{{TensorType::kF64, "F64", 8},
                                             {TensorType::kF32, "F32", 4},
                                             {TensorType::kF16, "F16", 2},
                                             {TensorType::kBF16, "BF16", 2},
                                             {TensorType::kI64, "I64", 8},
                                             {TensorType::kI32, "I32", 4},
                                             {TensorType::kI16, "I16", 2},
                                             {TensorType::kI8, "I8", 1},
                                             {TensorType::kU64, "U64", 8},
                                             {TensorType::kU32, "U32", 4},
                                             {TensorType::kU16, "U16", 2},
                                             {TensorType::kU8, "U8", 1},
                                             {TensorType::kBool, "BOOL", 1},
                                             {TensorType::kF8E5M2, "F8_E5M2", 1},
                                             {TensorType::kF8E4M3, "F8_E4M3", 1}}};

const TypeRow& RowOf(TensorType type) {
  return *std::ranges::find(kTypes, type, &TypeRow::type);  // every enumerator has a row
}

absl::StatusOr<TensorType> ReadType(const JsonField& entry) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, entry.Get("dtype"));
  MASKKV_ASSIGN_OR_RETURN(const std::string_view name, field.String());
  const TypeRow* const row = std::ranges::find(kTypes, name, &TypeRow::name);
  if (row == kTypes.end()) return field.Expected("an element type such as F32 or BF16");
  return row->type;
}

// The shape and its number of bytes.
absl::StatusOr<std::int64_t> ReadShape(const JsonField& entry, std::int64_t element_size,
                                       std::vector<std::int64_t>& shape) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, entry.Get("shape"));
  std::int64_t bytes = element_size;
  MASKKV_RETURN_IF_ERROR(field.ForEachElement([&](const JsonField& element) -> absl::Status {
    MASKKV_ASSIGN_OR_RETURN(const std::int64_t extent, element.Integer(0, kMaxInt64));
    if (__builtin_mul_overflow(bytes, extent, &bytes)) {
      return field.Expected("a shape of fewer than 2^63 bytes");
    }
    shape.push_back(extent);
    return absl::OkStatus();
  }));
  return bytes;
}

struct Extent {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::size_t tensor = 0;
};

// `data_offset` is where the data part begins in the file.
absl::StatusOr<Extent> ReadExtent(const JsonField& entry, const TensorView& tensor,
                                  std::int64_t bytes, std::int64_t data_offset,
                                  std::int64_t data_bytes) {
  MASKKV_ASSIGN_OR_RETURN(const JsonField field, entry.Get("data_offsets"));
  if (!field.is_array() || field.size() != 2) return field.Expected("an array of 2 offsets");
  Extent extent;
  MASKKV_ASSIGN_OR_RETURN(const JsonField begin, field.At(0));
  MASKKV_ASSIGN_OR_RETURN(extent.begin, begin.Integer(0, kMaxInt64));
  MASKKV_ASSIGN_OR_RETURN(const JsonField end, field.At(1));
  MASKKV_ASSIGN_OR_RETURN(extent.end, end.Integer(extent.begin, kMaxInt64));
  const std::string found = absl::StrCat("[", extent.begin, ", ", extent.end, "]");
  if (extent.end > data_bytes) {
    return FieldError(
        field.file(), field.path(),
        absl::StrCat("offsets up to the ", data_bytes, " bytes of data in the file (truncated?)"),
        found);
  }
  if (extent.end - extent.begin != bytes) {
    return FieldError(field.file(), field.path(),
                      absl::StrCat(bytes, " bytes for ", std::string(Name(tensor.type)), " ",
                                   ShapeText(tensor.shape)),
                      absl::StrCat(extent.end - extent.begin, " bytes ", found));
  }
  if ((data_offset + extent.begin) % SizeOf(tensor.type) != 0) {
    return FieldError(field.file(), field.path(),
                      absl::StrCat("a start in the file that is a multiple of ",
                                   SizeOf(tensor.type), " (misaligned)"),
                      absl::StrCat("byte ", data_offset + extent.begin));
  }
  return extent;
}

// The extents tile [0, data_bytes).
absl::Status CheckTiling(std::vector<Extent>& extents, const std::vector<TensorView>& tensors,
                         std::int64_t data_bytes, std::string_view file) {
  std::ranges::sort(extents, {}, [](const Extent& e) { return std::pair(e.begin, e.end); });
  std::int64_t at = 0;
  for (const Extent& extent : extents) {
    if (extent.begin != at) {
      return FieldError(file, Printable(tensors[extent.tensor].name) + ".data_offsets",
                        absl::StrCat("a start at ", at, ", where the tensor before ends"),
                        absl::StrCat(extent.begin, extent.begin < at ? " (overlap)" : " (gap)"));
    }
    at = extent.end;
  }
  if (at == data_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(std::string(file), ": expected ", at,
                                                 " bytes of tensors after the header, found ",
                                                 data_bytes, " (bytes that belong to no tensor)"));
}

absl::Status CheckMetadata(const JsonField& field) {
  return field.ForEachMember(
      [](const std::string&, const JsonField& member) { return member.String().status(); });
}

absl::StatusOr<std::string_view> ReadHeader(std::span<const std::byte> bytes,
                                            std::string_view file) {
  const std::string name(file);
  if (bytes.size() < kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": expected at least 8 bytes of header length, found ", bytes.size(), " bytes"));
  }
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kLengthBytes);
  if (length > kMaxHeaderBytes || length > bytes.size() - kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": header length: expected at most ",
        std::min(kMaxHeaderBytes, bytes.size() - kLengthBytes), " bytes, found ", length));
  }
  return std::string_view(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes,
                          static_cast<std::size_t>(length));
}

}  // namespace

std::string_view Name(TensorType type) { return RowOf(type).name; }
std::int64_t SizeOf(TensorType type) { return RowOf(type).size; }

std::string ShapeText(std::span<const std::int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape.begin(), shape.end(), ", "), "]");
}

absl::StatusOr<SafetensorsContent> ParseSafetensors(std::span<const std::byte> file_bytes,
                                                    std::string_view file) {
  MASKKV_ASSIGN_OR_RETURN(const std::string_view header, ReadHeader(file_bytes, file));
  const std::span<const std::byte> data = file_bytes.subspan(kLengthBytes + header.size());
  const auto data_offset = static_cast<std::int64_t>(kLengthBytes + header.size());
  const auto data_bytes = static_cast<std::int64_t>(data.size());
  MASKKV_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(header, file));

  SafetensorsContent content;
  content.header = file_bytes.subspan(kLengthBytes, header.size());
  std::vector<Extent> extents;
  MASKKV_RETURN_IF_ERROR(document.root().ForEachMember(
      [&](const std::string& name, const JsonField& entry) -> absl::Status {
        if (name == kMetadata) return CheckMetadata(entry);
        TensorView tensor;
        tensor.name = name;
        MASKKV_ASSIGN_OR_RETURN(tensor.type, ReadType(entry));
        MASKKV_ASSIGN_OR_RETURN(const std::int64_t bytes,
                                ReadShape(entry, SizeOf(tensor.type), tensor.shape));
        MASKKV_ASSIGN_OR_RETURN(Extent extent,
                                ReadExtent(entry, tensor, bytes, data_offset, data_bytes));
        tensor.data =
            data.subspan(static_cast<std::size_t>(extent.begin), static_cast<std::size_t>(bytes));
        extent.tensor = content.tensors.size();
        extents.push_back(extent);
        content.tensors.push_back(std::move(tensor));
        return absl::OkStatus();
      }));
  MASKKV_RETURN_IF_ERROR(CheckTiling(extents, content.tensors, data_bytes, file));
  return content;
}

SafetensorsFile::SafetensorsFile(std::string path, MappedFile file, SafetensorsContent content)
    : path_(std::move(path)), file_(std::move(file)), content_(std::move(content)) {}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  MASKKV_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  MASKKV_ASSIGN_OR_RETURN(SafetensorsContent content, ParseSafetensors(file.bytes(), path));
  return SafetensorsFile(path, std::move(file), std::move(content));
}

const TensorView* SafetensorsFile::Find(std::string_view name) const {
  const auto found = std::ranges::lower_bound(content_.tensors, name, {}, &TensorView::name);
  return found != content_.tensors.end() && found->name == name ? &*found : nullptr;
}

}  // namespace maskkv::model
