// SPDX-License-Identifier: Apache-2.0
#include "core/base/sha256.h"

#include <openssl/evp.h>

#include <cstdint>

#include "core/base/check.h"

namespace maskkv {

// OpenSSL fails here only without memory or without SHA-256 in the library.
Sha256::Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
  MASKKV_CHECK(context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1,
               "SHA-256 is available");
}

void Sha256::Update(std::span<const std::byte> bytes) {
  MASKKV_CHECK(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1, "SHA-256 works");
}

void Sha256::AddPart(std::span<const std::byte> part) {
  const std::uint64_t size = part.size();
  Update(std::as_bytes(std::span(&size, 1)));
  Update(part);
}

std::array<std::byte, 32> Sha256::Finish() {
  std::array<std::byte, 32> digest{};
  unsigned int size = 0;
  MASKKV_CHECK(EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()),
                                  &size) == 1 &&
                   size == digest.size(),
               "SHA-256 works");
  return digest;
}

std::string Hex(std::span<const std::byte> bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const std::byte byte : bytes) {
    text += kDigits[std::to_integer<unsigned>(byte) >> 4];
    text += kDigits[std::to_integer<unsigned>(byte) & 15];
  }
  return text;
}

}  // namespace maskkv
