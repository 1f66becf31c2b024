// SPDX-License-Identifier: Apache-2.0
//
// A checkpoint of any size whose tensors are bf16 zeros that take no room on the disk (a file with
// holes), apart from what a test sets. Files of a folder that the caller owns.
#ifndef MASKKV_TESTS_UNIT_CORE_MODEL_SPARSE_CHECKPOINT_H_
#define MASKKV_TESTS_UNIT_CORE_MODEL_SPARSE_CHECKPOINT_H_

#include <cstdint>
#include <map>
#include <string>

#include "core/base/unique_fd.h"
#include "core/model/tensor_names.h"
#include "nlohmann/json.hpp"

namespace maskkv::model {

class SparseCheckpoint {
 public:
  // Writes config.json and model.safetensors. REQUIRES: config is valid.
  SparseCheckpoint(const std::string& folder, const nlohmann::json& config);

  const ModelTensors& tensors() const { return tensors_; }
  std::int64_t file_bytes() const { return file_bytes_; }
  // What the file takes on the disk.
  std::int64_t disk_bytes() const;

  void Set(const TensorSpec& tensor, std::int64_t element, float value);
  void Fill(const TensorSpec& tensor, float value);
  // Ones on the diagonal of a matrix.
  void SetIdentity(const TensorSpec& tensor);

 private:
  ModelTensors tensors_;
  std::map<std::string, std::int64_t> offsets_;  // of tensors, in the file
  std::int64_t file_bytes_ = 0;
  UniqueFd file_;
};

}  // namespace maskkv::model

#endif  // MASKKV_TESTS_UNIT_CORE_MODEL_SPARSE_CHECKPOINT_H_
