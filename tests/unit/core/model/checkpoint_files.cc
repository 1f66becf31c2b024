// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/core/model/checkpoint_files.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/base/check.h"
#include "core/model/config.h"
#include "core/model/tensor_names.h"

namespace maskkv::model {

TemporaryFolder::TemporaryFolder() {
  std::string pattern = std::filesystem::temp_directory_path().string() + "/maskkv-test-XXXXXX";
  MASKKV_CHECK(::mkdtemp(pattern.data()) != nullptr, "a temporary folder can be made");
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TemporaryFolder::Write(std::string_view name, std::string_view content) const {
  std::string path = path_ + "/" + std::string(name);
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

void TemporaryFolder::Remove(std::string_view name) const {
  std::filesystem::remove(path_ + "/" + std::string(name));
}

nlohmann::json SmallConfig() {
  return {{"model_type", "llada"},
          {"d_model", 8},
          {"n_layers", 2},
          {"n_heads", 2},
          {"n_kv_heads", 2},
          {"multi_query_attention", nullptr},
          {"mlp_hidden_size", 12},
          {"mlp_ratio", 4},
          {"vocab_size", 10},
          {"embedding_size", 10},
          {"mask_token_id", 9},
          {"eos_token_id", 8},
          {"pad_token_id", 8},
          {"max_sequence_length", 64},
          {"rope_theta", 500000.0},
          {"rms_norm_eps", 1e-5},
          {"weight_tying", false},
          {"torch_dtype", "bfloat16"},
          {"block_type", "llama"},
          {"block_group_size", 1},
          {"activation_type", "silu"},
          {"layer_norm_type", "rms"},
          {"rope", true},
          {"rope_full_precision", true},
          {"alibi", false},
          {"attention_layer_norm", false},
          {"bias_for_layer_norm", false},
          {"include_bias", false},
          {"include_qkv_bias", false},
          {"input_emb_norm", false},
          {"scale_logits", false},
          {"layer_norm_with_affine", true}};
}

FileTensor MakeTensor(const std::string& name, const std::string& dtype,
                      const std::vector<std::int64_t>& shape) {
  std::int64_t bytes = dtype == "F64" ? 8 : dtype == "F32" ? 4 : dtype == "U8" ? 1 : 2;
  for (const std::int64_t extent : shape) bytes *= extent;
  std::string data;
  for (std::int64_t i = 0; i < bytes; ++i) {
    data += static_cast<char>(name[static_cast<std::size_t>(i) % name.size()] + (i % 7));
  }
  return {name, dtype, shape, data};
}

std::vector<FileTensor> SmallTensors(bool tied) {
  nlohmann::json json = SmallConfig();
  json["weight_tying"] = tied;
  const auto config = ParseModelConfig(json.dump(), "config.json");
  MASKKV_CHECK(config.ok(), "the small configuration is valid");
  std::vector<FileTensor> tensors;
  for (const TensorSpec& spec : ListTensors(TensorsOf(*config))) {
    tensors.push_back(MakeTensor(spec.name, "BF16", spec.shape));
  }
  return tensors;
}

nlohmann::json HeaderOf(const std::vector<FileTensor>& tensors) {
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  std::size_t at = 0;
  for (const FileTensor& tensor : tensors) {
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {at, at + tensor.data.size()}}};
    at += tensor.data.size();
  }
  return header;
}

std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  std::string padded = header;
  while (padded.size() % 8 != 0) padded += ' ';
  std::string bytes(8, '\0');
  const std::uint64_t length = padded.size();
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + padded + data;
}

std::string SafetensorsBytes(const std::vector<FileTensor>& tensors) {
  std::string data;
  for (const FileTensor& tensor : tensors) data += tensor.data;
  return SafetensorsBytes(HeaderOf(tensors).dump(), data);
}

}  // namespace maskkv::model
