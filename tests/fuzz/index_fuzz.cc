// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as an index of shards: an error of one line, or file names that stay in the directory.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/base/check.h"
#include "core/model/shard_index.h"
#include "tests/fuzz/message_check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace maskkv;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto index = model::ParseShardIndex(text, "index.json");
  if (!index.ok()) {
    CheckMessage(index.status(), "index.json");
    return 0;
  }
  MASKKV_CHECK(!index->weight_map.empty(), "an index names tensors");
  for (const auto& [tensor, file] : index->weight_map) {
    MASKKV_CHECK(file.ends_with(".safetensors"), "a weight file");
    MASKKV_CHECK(file.find('/') == std::string::npos, "a plain name");
  }
  return 0;
}
