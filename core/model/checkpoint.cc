// SPDX-License-Identifier: Apache-2.0
#include "core/model/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/status_macros.h"
#include "core/model/fingerprint.h"
#include "core/model/json_reader.h"
#include "core/model/shard_index.h"

namespace maskkv::model {
namespace {

constexpr std::int64_t kMaxIndexBytes = 1 << 26;
constexpr std::size_t kNamesInMessage = 4;

std::string PathIn(const std::string& directory, std::string_view name) {
  return directory + "/" + std::string(name);
}

bool Exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

absl::Status TensorError(const SafetensorsFile& file, std::string_view tensor,
                         std::string_view expected, std::string_view found) {
  return absl::InvalidArgumentError(absl::StrCat(file.path(), ": tensor ", Printable(tensor),
                                                 ": expected ", std::string(expected), ", found ",
                                                 std::string(found)));
}

// "3 missing tensors: a, b, c"; the first few of many.
absl::Status NameList(const std::string& directory, const std::string& what,
                      const std::vector<std::string>& names) {
  std::string list;
  for (std::size_t i = 0; i < std::min(names.size(), kNamesInMessage); ++i) {
    list += (i == 0 ? "" : ", ") + Printable(names[i]);
  }
  if (names.size() > kNamesInMessage) list += ", ...";
  return absl::InvalidArgumentError(
      absl::StrCat(directory, ": ", what, ", found ", names.size(), ": ", list));
}

// The index and the file agree about which tensors the file holds.
absl::Status CheckShard(const SafetensorsFile& file, const std::string& shard,
                        const ShardIndex& index, const std::string& index_path) {
  for (const TensorView& tensor : file.tensors()) {
    const auto entry = index.weight_map.find(tensor.name);
    if (entry == index.weight_map.end()) {
      return FieldError(index_path, "weight_map." + Printable(tensor.name),
                        "an entry for each tensor of " + shard, "no such field");
    }
    if (entry->second != shard) {
      return TensorError(file, tensor.name,
                         "it in " + Printable(entry->second) + " alone, as " + index_path + " says",
                         "it here too");
    }
  }
  for (const auto& [tensor, owner] : index.weight_map) {
    if (owner == shard && file.Find(tensor) == nullptr) {
      return FieldError(index_path, "weight_map." + Printable(tensor), "a tensor of " + shard,
                        "no such tensor in that file");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& directory) {
  Checkpoint checkpoint;
  checkpoint.directory_ = directory;
  const std::string config_path = PathIn(directory, kConfigFile);
  MASKKV_ASSIGN_OR_RETURN(const std::string config, ReadFile(config_path, kMaxConfigBytes));
  MASKKV_ASSIGN_OR_RETURN(checkpoint.config_, ParseModelConfig(config, config_path));
  checkpoint.tensors_ = TensorsOf(checkpoint.config_);
  MASKKV_RETURN_IF_ERROR(checkpoint.OpenFiles());
  MASKKV_RETURN_IF_ERROR(checkpoint.CheckTensors());
  MASKKV_RETURN_IF_ERROR(checkpoint.CheckTiedCopies());

  const std::string tokenizer_path = PathIn(directory, kTokenizerFile);
  std::string tokenizer;
  if (Exists(tokenizer_path)) {
    MASKKV_ASSIGN_OR_RETURN(tokenizer, ReadFile(tokenizer_path, kMaxIndexBytes));
  }
  checkpoint.fingerprint_ = ModelFingerprint(config, tokenizer, checkpoint.files_);
  return checkpoint;
}

absl::Status Checkpoint::OpenFiles() {
  const std::string weights_path = PathIn(directory_, kWeightsFile);
  const std::string index_path = PathIn(directory_, kIndexFile);
  if (Exists(index_path)) {
    if (Exists(weights_path)) {
      return absl::InvalidArgumentError(absl::StrCat(directory_, ": expected ",
                                                     std::string(kWeightsFile), " or ",
                                                     std::string(kIndexFile), ", found both"));
    }
    return OpenShards(index_path);
  }
  MASKKV_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(weights_path));
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status Checkpoint::OpenShards(const std::string& index_path) {
  MASKKV_ASSIGN_OR_RETURN(const std::string text, ReadFile(index_path, kMaxIndexBytes));
  MASKKV_ASSIGN_OR_RETURN(const ShardIndex index, ParseShardIndex(text, index_path));
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : index.weight_map) shards.insert(shard);
  for (const std::string& shard : shards) {
    MASKKV_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(PathIn(directory_, shard)));
    MASKKV_RETURN_IF_ERROR(CheckShard(file, shard, index, index_path));
    files_.push_back(std::move(file));
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::CheckTensors() const {
  const std::vector<TensorSpec> wanted = ListTensors(tensors_);
  std::set<std::string, std::less<>> known(tensors_.tied_copies.begin(),
                                           tensors_.tied_copies.end());
  std::vector<std::string> missing;
  for (const TensorSpec& spec : wanted) {
    known.insert(spec.name);
    if (Locate(spec.name).tensor == nullptr) {
      missing.push_back(spec.name);
      continue;
    }
    MASKKV_RETURN_IF_ERROR(Tensor(spec).status());
  }
  if (!missing.empty()) {
    return NameList(directory_, "expected no missing tensors", missing);
  }
  std::vector<std::string> unknown;
  for (const SafetensorsFile& file : files_) {
    for (const TensorView& tensor : file.tensors()) {
      if (!known.contains(tensor.name)) unknown.push_back(tensor.name);
    }
  }
  if (unknown.empty()) return absl::OkStatus();
  return NameList(directory_,
                  "expected no tensors besides those of model_type " + config_.model_type, unknown);
}

absl::Status Checkpoint::CheckTiedCopies() const {
  for (const std::string& name : tensors_.tied_copies) {
    const Located copy = Locate(name);
    if (copy.tensor == nullptr) continue;
    const Located original = Locate(tensors_.embedding.name);
    if (!std::ranges::equal(copy.tensor->shape, original.tensor->shape) ||
        copy.tensor->type != original.tensor->type ||
        std::memcmp(copy.tensor->data.data(), original.tensor->data.data(),
                    original.tensor->data.size()) != 0) {
      return TensorError(*copy.file, name,
                         "a copy of " + tensors_.embedding.name + ", the tied head",
                         "another tensor");
    }
  }
  return absl::OkStatus();
}

Checkpoint::Located Checkpoint::Locate(std::string_view name) const {
  for (const SafetensorsFile& file : files_) {
    if (const TensorView* tensor = file.Find(name)) return {&file, tensor};
  }
  return {};
}

absl::StatusOr<Weight> Checkpoint::Tensor(std::string_view name,
                                          std::span<const std::int64_t> expected_shape) const {
  const Located found = Locate(name);
  if (found.tensor == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(directory_, ": expected a tensor ", Printable(name), ", found none"));
  }
  const TensorView& tensor = *found.tensor;
  if (!std::ranges::equal(tensor.shape, expected_shape)) {
    return TensorError(*found.file, name, "shape " + ShapeText(expected_shape),
                       ShapeText(tensor.shape));
  }
  if (tensor.type != TensorType::kF32 && tensor.type != TensorType::kBF16) {
    return TensorError(*found.file, name, "dtype F32 or BF16", std::string(Name(tensor.type)));
  }
  return Weight{tensor.data.data(),
                tensor.type == TensorType::kF32 ? kernels::DType::kF32 : kernels::DType::kBF16,
                tensor.shape};
}

std::int64_t Checkpoint::weight_bytes() const {
  std::int64_t bytes = 0;
  for (const SafetensorsFile& file : files_) {
    for (const TensorView& tensor : file.tensors()) {
      bytes += static_cast<std::int64_t>(tensor.data.size());
    }
  }
  return bytes;
}

}  // namespace maskkv::model
