// SPDX-License-Identifier: Apache-2.0
//
// --response-every and --response-share of the commands that decode, and one response feature cache
// (core/engine/response_cache.h) as a word, as lists of them take it: EVERY:SHARE, "5:0.25"; "off".
#ifndef MASKKV_SERVICES_MASKKV_RESPONSE_FLAGS_H_
#define MASKKV_SERVICES_MASKKV_RESPONSE_FLAGS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/engine/generate_params.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace maskkv::cli {

struct ResponseFlags {
  std::int64_t every = 0;
  double share = 0.25;

  void Declare(CLI::App& app);
  void Apply(engine::GenerateParams& params) const;
};

// Errors: INVALID_ARGUMENT.
absl::StatusOr<ResponseFlags> ParseResponseCache(std::string_view text);

// --response-caches: several to compare. Each is checked.
CLI::Option* DeclareResponseCaches(CLI::App& app, std::vector<std::string>& caches);

// One for each word. REQUIRES: they were checked.
std::vector<ResponseFlags> ResponseCaches(const std::vector<std::string>& caches);

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_RESPONSE_FLAGS_H_
