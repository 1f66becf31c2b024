// SPDX-License-Identifier: Apache-2.0
//
// Which bearer token speaks for which tenant. Tokens are held as SHA-256 digests and compared in
// constant time over all of them, so that how long an answer takes tells nothing. Immutable: any
// thread may read it.
#ifndef MASKKV_SERVICES_DECODE_TOKEN_TABLE_H_
#define MASKKV_SERVICES_DECODE_TOKEN_TABLE_H_

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace maskkv::decode {

class TokenTable {
 public:
  // Lines `TOKEN TENANT`; empty lines and lines that start with # are skipped. A token has 16 to
  // 512 printable ASCII characters, a tenant is [a-z0-9][a-z0-9._-]{0,62}. Several tokens may speak
  // for one tenant. `file` is for messages, which never hold a token. Errors: INVALID_ARGUMENT
  // (BAD_TOKEN_FILE, with the line).
  static absl::StatusOr<TokenTable> Parse(std::string_view text, std::string_view file);
  // Errors: of the file, and of Parse.
  static absl::StatusOr<TokenTable> Load(const std::string& path);

  // authorization: the value of that metadata, "Bearer TOKEN".
  // Returns: the tenant. Errors: UNAUTHENTICATED (BAD_TOKEN).
  absl::StatusOr<std::string> Authenticate(std::string_view authorization) const;

  std::size_t size() const { return entries_.size(); }

 private:
  using Digest = std::array<std::byte, 32>;

  std::vector<std::pair<Digest, std::string>> entries_;
};

}  // namespace maskkv::decode

#endif  // MASKKV_SERVICES_DECODE_TOKEN_TABLE_H_
