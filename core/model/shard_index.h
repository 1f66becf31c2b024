// SPDX-License-Identifier: Apache-2.0
//
// model.safetensors.index.json: which of several safetensors files holds which tensor.
#ifndef MASKKV_CORE_MODEL_SHARD_INDEX_H_
#define MASKKV_CORE_MODEL_SHARD_INDEX_H_

#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace maskkv::model {

struct ShardIndex {
  static constexpr int kMaxShards = 4096;

  // Tensor name -> file name. A file name is a plain name next to the index, ending in
  // ".safetensors": nothing that leads out of the directory.
  //
  // metadata.total_size is checked for its type alone: published indices count tied or dropped
  // tensors in it or not. What the shards must hold follows from config.json.
  std::map<std::string, std::string, std::less<>> weight_map;
};

// Parses the text of an index; `file` is only for messages.
// Errors: INVALID_ARGUMENT "FILE: field F: expected ..., found ...".
absl::StatusOr<ShardIndex> ParseShardIndex(std::string_view json, std::string_view file);

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_SHARD_INDEX_H_
