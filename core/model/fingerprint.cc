// SPDX-License-Identifier: Apache-2.0
#include "core/model/fingerprint.h"

#include <openssl/evp.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/base/check.h"

namespace maskkv::model {
namespace {

constexpr std::string_view kVersionTag = "maskkv model fingerprint 1";
constexpr std::size_t kSampleBytes = 4096;

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    // Fails only without memory or without SHA-256 in the library.
    MASKKV_CHECK(
        context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1,
        "SHA-256 is available");
  }

  void Add(std::span<const std::byte> part) {
    const std::uint64_t size = part.size();
    Update(&size, sizeof(size));
    Update(part.data(), part.size());
  }
  void Add(std::string_view part) { Add(std::as_bytes(std::span(part))); }

  std::string Hex() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned int size = 0;
    MASKKV_CHECK(EVP_DigestFinal_ex(context_.get(), digest.data(), &size) == 1, "SHA-256 works");
    constexpr char kHex[] = "0123456789abcdef";
    std::string text;
    for (unsigned int i = 0; i < size; ++i) {
      text += kHex[digest[i] >> 4];
      text += kHex[digest[i] & 15];
    }
    return text;
  }

 private:
  void Update(const void* data, std::size_t size) {
    MASKKV_CHECK(EVP_DigestUpdate(context_.get(), data, size) == 1, "SHA-256 works");
  }

  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

void AddSample(std::span<const std::byte> data, Sha256& hash) {
  if (data.size() <= kSampleBytes) {
    hash.Add(data);
    return;
  }
  for (const std::size_t begin :
       {std::size_t{0}, (data.size() - kSampleBytes) / 2, data.size() - kSampleBytes}) {
    hash.Add(data.subspan(begin, kSampleBytes));
  }
}

}  // namespace

std::string ModelFingerprint(std::string_view config_json, std::string_view tokenizer_json,
                             std::span<const SafetensorsFile> files) {
  Sha256 hash;
  hash.Add(kVersionTag);
  hash.Add(config_json);
  hash.Add(tokenizer_json);
  for (const SafetensorsFile& file : files) {
    hash.Add(file.header());
    for (const TensorView& tensor : file.tensors()) AddSample(tensor.data, hash);
  }
  return hash.Hex();
}

}  // namespace maskkv::model
