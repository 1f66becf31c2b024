// SPDX-License-Identifier: Apache-2.0
//
// One safetensors file: 8 bytes little-endian length of the header, the header (a JSON object: name
// -> {dtype, shape, data_offsets}), then the tensors' bytes. The reader trusts nothing: the header
// must fit the file, every tensor's bytes must be exactly shape x element size, and the tensors
// must tile the data part in some order without a gap, an overlap or a rest. Format:
// https://huggingface.co/docs/safetensors, section "Format".
//
// Thread safety: immutable after Open. A TensorView points into the mapping: it must not outlive
// the SafetensorsFile, which may be moved.
#ifndef MASKKV_CORE_MODEL_SAFETENSORS_H_
#define MASKKV_CORE_MODEL_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/model/mapped_file.h"

namespace maskkv::model {

// Every element type of the format; which of them a model accepts is the caller's business.
enum class TensorType : std::uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kI64,
  kI32,
  kI16,
  kI8,
  kU64,
  kU32,
  kU16,
  kU8,
  kBool,
  kF8E5M2,
  kF8E4M3
};

// The spelling of the format, "BF16".
std::string_view Name(TensorType type);
// Bytes of one element: 1, 2, 4 or 8.
std::int64_t SizeOf(TensorType type);

struct TensorView {
  std::string name;
  TensorType type = TensorType::kF32;
  std::vector<std::int64_t> shape;  // row-major; empty for a scalar; may hold zeros
  std::span<const std::byte> data;  // aligned to the element size within the file
};

// "[256, 512]"
std::string ShapeText(std::span<const std::int64_t> shape);

struct SafetensorsContent {
  std::vector<TensorView> tensors;    // ascending by name, names distinct
  std::span<const std::byte> header;  // the JSON text
};

// Reads the structure of a whole file in memory; views point into `file_bytes`.
// Errors: INVALID_ARGUMENT naming `file`, the tensor, the field, what was found and expected.
absl::StatusOr<SafetensorsContent> ParseSafetensors(std::span<const std::byte> file_bytes,
                                                    std::string_view file);

class SafetensorsFile {
 public:
  // Maps the file and reads its structure; no tensor is touched.
  // Errors: as MappedFile::Open and ParseSafetensors.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  const std::string& path() const { return path_; }
  std::span<const std::byte> header() const { return content_.header; }
  const std::vector<TensorView>& tensors() const { return content_.tensors; }
  // nullptr if there is none of that name.
  const TensorView* Find(std::string_view name) const;

 private:
  SafetensorsFile(std::string path, MappedFile file, SafetensorsContent content);

  std::string path_;
  MappedFile file_;
  SafetensorsContent content_;
};

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_SAFETENSORS_H_
