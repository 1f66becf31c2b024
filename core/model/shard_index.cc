// SPDX-License-Identifier: Apache-2.0
#include "core/model/shard_index.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "core/model/json_reader.h"

namespace maskkv::model {
namespace {

constexpr std::string_view kSuffix = ".safetensors";

bool IsPlainShardName(std::string_view name) {
  if (!name.ends_with(kSuffix) || name.size() == kSuffix.size()) return false;
  return std::ranges::all_of(name, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return c != '/' && c != '\\' && byte >= 0x20 && byte != 0x7f;
  });
}

}  // namespace

absl::StatusOr<ShardIndex> ParseShardIndex(std::string_view json, std::string_view file) {
  MASKKV_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(json, file));
  const JsonField root = document.root();
  // The size of all tensors is not compared with the files, whose own headers say it exactly.
  if (const auto metadata = root.Find("metadata")) {
    if (const auto size = metadata->Find("total_size")) {
      MASKKV_RETURN_IF_ERROR(size->Integer(0, std::numeric_limits<std::int64_t>::max()).status());
    }
  }
  MASKKV_ASSIGN_OR_RETURN(const JsonField map, root.Get("weight_map"));
  ShardIndex index;
  std::set<std::string, std::less<>> files;
  MASKKV_RETURN_IF_ERROR(
      map.ForEachMember([&](const std::string& tensor, const JsonField& entry) -> absl::Status {
        MASKKV_ASSIGN_OR_RETURN(const std::string_view shard, entry.String());
        if (!IsPlainShardName(shard)) {
          return entry.Expected("the name of a .safetensors file in the same directory");
        }
        files.emplace(shard);
        if (files.size() > ShardIndex::kMaxShards) {
          return map.Expected(absl::StrCat("at most ", ShardIndex::kMaxShards, " files"));
        }
        index.weight_map.emplace(tensor, shard);
        return absl::OkStatus();
      }));
  if (index.weight_map.empty()) return map.Expected("at least one tensor");
  return index;
}

}  // namespace maskkv::model
