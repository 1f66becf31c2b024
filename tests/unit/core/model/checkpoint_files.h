// SPDX-License-Identifier: Apache-2.0
//
// Checkpoint files made for tests: a folder that goes away, config.json texts with fields changed,
// safetensors files with anything in them.
#ifndef MASKKV_TESTS_UNIT_CORE_MODEL_CHECKPOINT_FILES_H_
#define MASKKV_TESTS_UNIT_CORE_MODEL_CHECKPOINT_FILES_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "nlohmann/json.hpp"

namespace maskkv::model {

// A folder of its own for each test, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder();

  const std::string& path() const { return path_; }
  std::string Write(std::string_view name, std::string_view content) const;  // returns the path
  void Remove(std::string_view name) const;

 private:
  std::string path_;
};

// A LLaDA configuration of hidden 8, 2 layers, 2 heads, FFN 12, 10 rows of vocabulary.
nlohmann::json SmallConfig();

struct FileTensor {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::string data;
};

// A tensor of the right number of bytes, filled from its name.
FileTensor MakeTensor(const std::string& name, const std::string& dtype,
                      const std::vector<std::int64_t>& shape);

// Every tensor of SmallConfig(), BF16, and the head if it is not tied.
std::vector<FileTensor> SmallTensors(bool tied = false);

// The header as JSON with data_offsets one after the other.
nlohmann::json HeaderOf(const std::vector<FileTensor>& tensors);
// Length, header, data. The header is padded with spaces to a multiple of 8 bytes.
std::string SafetensorsBytes(const std::string& header, const std::string& data);
std::string SafetensorsBytes(const std::vector<FileTensor>& tensors);

}  // namespace maskkv::model

#endif  // MASKKV_TESTS_UNIT_CORE_MODEL_CHECKPOINT_FILES_H_
