// SPDX-License-Identifier: Apache-2.0
//
// Files of a checkpoint, read-only. A MappedFile owns a mapping of a whole regular file; its bytes
// stay where they are when the object is moved. Pages are read on first touch, so opening a large
// file costs nothing. The file must not be truncated while it is mapped: touching a page that is
// gone ends the process (SIGBUS), as with every program that maps its weights.
//
// Thread safety: immutable after Open.
#ifndef MASKKV_CORE_MODEL_MAPPED_FILE_H_
#define MASKKV_CORE_MODEL_MAPPED_FILE_H_

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace maskkv::model {

class MappedFile {
 public:
  // Errors: NOT_FOUND if there is no such file, INVALID_ARGUMENT if it is not a regular file,
  // PERMISSION_DENIED, or INTERNAL for anything else the system reports.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  // Empty for an empty file.
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::span<const std::byte> bytes_;
};

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_MAPPED_FILE_H_
