// SPDX-License-Identifier: Apache-2.0
//
// SHA-256 of bytes that come in parts. Movable, not copyable, not thread safe.
#ifndef MASKKV_CORE_BASE_SHA256_H_
#define MASKKV_CORE_BASE_SHA256_H_

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace maskkv {

class Sha256 {
 public:
  Sha256();

  void Update(std::span<const std::byte> bytes);

  // The part's length (64 bits, little endian), then the part: so that no two sequences of parts
  // are the same bytes.
  void AddPart(std::span<const std::byte> part);
  void AddPart(std::string_view part) { AddPart(std::as_bytes(std::span(part))); }

  // REQUIRES: called once, nothing afterwards.
  std::array<std::byte, 32> Finish();

 private:
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
};

// Lower-case hexadecimal digits, two a byte.
std::string Hex(std::span<const std::byte> bytes);

}  // namespace maskkv

#endif  // MASKKV_CORE_BASE_SHA256_H_
