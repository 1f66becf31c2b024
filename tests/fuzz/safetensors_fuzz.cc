// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a safetensors file: an error of one line, or tensors that tile the file's data.
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/base/check.h"
#include "core/model/safetensors.h"
#include "tests/fuzz/message_check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace maskkv;
  const auto file = std::as_bytes(std::span(data, size));
  const auto content = model::ParseSafetensors(file, "m.safetensors");
  if (!content.ok()) {
    CheckMessage(content.status(), "m.safetensors");
    return 0;
  }
  std::size_t total = 0;
  for (const model::TensorView& tensor : content->tensors) {
    std::int64_t bytes = model::SizeOf(tensor.type);
    for (const std::int64_t extent : tensor.shape) bytes *= extent;
    MASKKV_CHECK(static_cast<std::int64_t>(tensor.data.size()) == bytes, "the shape's bytes");
    if (bytes == 0) continue;
    MASKKV_CHECK(tensor.data.data() >= content->header.data() + content->header.size(), "after it");
    MASKKV_CHECK(tensor.data.data() + bytes <= file.data() + size, "inside the file");
    total += tensor.data.size();
  }
  MASKKV_CHECK(8 + content->header.size() + total == size, "every byte belongs to one tensor");
  return 0;
}
