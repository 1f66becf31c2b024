// SPDX-License-Identifier: Apache-2.0
//
// A checkpoint directory as Hugging Face publishes it, opened and checked as a whole: config.json,
// the weights in model.safetensors or in the files that model.safetensors.index.json names, and
// tokenizer.json if there is one. After Open every tensor that the configuration asks for is there,
// once, with its shape and a type that can be computed with, and no tensor is there that nobody
// asks for. Tensor data stays in the files, mapped read-only: opening reads no weights.
//
// Ownership: the checkpoint owns the mappings; a Weight points into them and must not outlive it.
// Moving the checkpoint keeps Weights valid. Thread safety: immutable after Open.
#ifndef MASKKV_CORE_MODEL_CHECKPOINT_H_
#define MASKKV_CORE_MODEL_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/model/config.h"
#include "core/model/safetensors.h"
#include "core/model/tensor_names.h"
#include "kernels/base/dtype.h"

namespace maskkv::model {

// A tensor of the model. data holds the product of shape elements of `dtype`, row-major, aligned to
// the element's size.
struct Weight {
  const std::byte* data = nullptr;
  kernels::DType dtype = kernels::DType::kF32;
  std::vector<std::int64_t> shape;
};

class Checkpoint {
 public:
  static constexpr std::string_view kConfigFile = "config.json";
  static constexpr std::string_view kTokenizerFile = "tokenizer.json";
  static constexpr std::string_view kWeightsFile = "model.safetensors";
  static constexpr std::string_view kIndexFile = "model.safetensors.index.json";

  // Errors: NOT_FOUND for a missing file; INVALID_ARGUMENT for a broken one (see config.h,
  // safetensors.h, shard_index.h), for a tensor that is missing, doubled, unknown, of another shape
  // or of a type other than F32 and BF16, and if both a single file and an index are there. A head
  // tied to the embedding may be stored besides it if it is the same byte for byte.
  static absl::StatusOr<Checkpoint> Open(const std::string& directory);

  const std::string& directory() const { return directory_; }
  const ModelConfig& config() const { return config_; }
  // Names and shapes by meaning.
  const ModelTensors& tensors() const { return tensors_; }
  // Weight files, ascending by name.
  const std::vector<SafetensorsFile>& files() const { return files_; }

  // Errors: NOT_FOUND if no file holds `name`; INVALID_ARGUMENT if its shape is another or its type
  // is neither F32 nor BF16.
  absl::StatusOr<Weight> Tensor(std::string_view name,
                                std::span<const std::int64_t> expected_shape) const;
  absl::StatusOr<Weight> Tensor(const TensorSpec& spec) const {
    return Tensor(spec.name, spec.shape);
  }

  // Bytes of all tensors in the files.
  std::int64_t weight_bytes() const;

  // The identity of the model: 64 hexadecimal digits, equal for equal checkpoints. A SHA-256 of
  // config.json, tokenizer.json, the headers of the weight files and a fixed sample of each
  // tensor's bytes (fingerprint.h). It tells models apart; it does not notice a damaged weight
  // file.
  const std::string& Fingerprint() const { return fingerprint_; }

 private:
  Checkpoint() = default;
  absl::Status OpenFiles();
  absl::Status OpenShards(const std::string& index_path);
  absl::Status CheckTensors() const;
  absl::Status CheckTiedCopies() const;
  struct Located {
    const SafetensorsFile* file = nullptr;
    const TensorView* tensor = nullptr;
  };
  Located Locate(std::string_view name) const;

  std::string directory_;
  ModelConfig config_;
  ModelTensors tensors_;
  std::vector<SafetensorsFile> files_;
  std::string fingerprint_;
};

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_CHECKPOINT_H_
