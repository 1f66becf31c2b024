// SPDX-License-Identifier: Apache-2.0
#include "core/model/fingerprint.h"

#include <cstddef>

#include "core/base/sha256.h"

namespace maskkv::model {
namespace {

constexpr std::string_view kVersionTag = "maskkv model fingerprint 1";
constexpr std::size_t kSampleBytes = 4096;

void AddSample(std::span<const std::byte> data, Sha256& hash) {
  if (data.size() <= kSampleBytes) {
    hash.AddPart(data);
    return;
  }
  for (const std::size_t begin :
       {std::size_t{0}, (data.size() - kSampleBytes) / 2, data.size() - kSampleBytes}) {
    hash.AddPart(data.subspan(begin, kSampleBytes));
  }
}

}  // namespace

std::string ModelFingerprint(std::string_view config_json, std::string_view tokenizer_json,
                             std::span<const SafetensorsFile> files) {
  Sha256 hash;
  hash.AddPart(kVersionTag);
  hash.AddPart(config_json);
  hash.AddPart(tokenizer_json);
  for (const SafetensorsFile& file : files) {
    hash.AddPart(file.header());
    for (const TensorView& tensor : file.tensors()) AddSample(tensor.data, hash);
  }
  return Hex(hash.Finish());
}

}  // namespace maskkv::model
