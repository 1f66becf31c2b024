// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/core/model/sparse_checkpoint.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <vector>

#include "core/base/check.h"
#include "core/model/config.h"
#include "kernels/base/dtype.h"

namespace maskkv::model {
namespace {

std::int64_t ElementsOf(const TensorSpec& tensor) {
  std::int64_t elements = 1;
  for (const std::int64_t extent : tensor.shape) elements *= extent;
  return elements;
}

void WriteAt(int file, const void* bytes, std::size_t count, std::int64_t offset) {
  MASKKV_CHECK(::pwrite(file, bytes, count, offset) == static_cast<ssize_t>(count),
               "a test's file can be written");
}

}  // namespace

SparseCheckpoint::SparseCheckpoint(const std::string& folder, const nlohmann::json& config) {
  std::ofstream(folder + "/config.json") << config.dump();
  tensors_ = TensorsOf(ParseModelConfig(config.dump(), "config.json").value());
  nlohmann::json header;
  std::int64_t data = 0;
  for (const TensorSpec& tensor : ListTensors(tensors_)) {
    const std::int64_t end = data + 2 * ElementsOf(tensor);
    header[tensor.name] = {
        {"dtype", "BF16"}, {"shape", tensor.shape}, {"data_offsets", {data, end}}};
    offsets_[tensor.name] = data;
    data = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = text.size();
  const auto first = static_cast<std::int64_t>(sizeof(length) + length);
  for (auto& [name, offset] : offsets_) offset += first;
  file_bytes_ = first + data;
  const std::string path = folder + "/model.safetensors";
  file_.Reset(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  MASKKV_CHECK(file_.valid() && ::ftruncate(file_.get(), file_bytes_) == 0,
               "a test's file can be made");
  WriteAt(file_.get(), &length, sizeof(length), 0);
  WriteAt(file_.get(), text.data(), text.size(), sizeof(length));
}

std::int64_t SparseCheckpoint::disk_bytes() const {
  struct stat info {};
  MASKKV_CHECK(::fstat(file_.get(), &info) == 0, "a test's file can be looked at");
  return info.st_blocks * 512;
}

void SparseCheckpoint::Set(const TensorSpec& tensor, std::int64_t element, float value) {
  MASKKV_CHECK(element >= 0 && element < ElementsOf(tensor), "an element of the tensor");
  const kernels::Bf16 narrow = kernels::ToBf16(value);
  WriteAt(file_.get(), &narrow, sizeof(narrow), offsets_.at(tensor.name) + 2 * element);
}

void SparseCheckpoint::Fill(const TensorSpec& tensor, float value) {
  const std::vector<kernels::Bf16> all(static_cast<std::size_t>(ElementsOf(tensor)),
                                       kernels::ToBf16(value));
  WriteAt(file_.get(), all.data(), all.size() * sizeof(all[0]), offsets_.at(tensor.name));
}

void SparseCheckpoint::SetIdentity(const TensorSpec& tensor) {
  for (std::int64_t i = 0; i < std::min(tensor.shape[0], tensor.shape[1]); ++i) {
    Set(tensor, i * tensor.shape[1] + i, 1);
  }
}

}  // namespace maskkv::model
