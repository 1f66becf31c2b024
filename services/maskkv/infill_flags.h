// SPDX-License-Identifier: Apache-2.0
//
// --infill and --infill-text of generate: a text in which [[N]] stands for N masks. Alone, the text
// before the first masks and after the last is the prompt; beside a prompt that other flags name
// all of it is what the answer starts with. A value.
#ifndef MASKKV_SERVICES_MASKKV_INFILL_FLAGS_H_
#define MASKKV_SERVICES_MASKKV_INFILL_FLAGS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "services/maskkv/generation.h"
#include "services/maskkv/model_host.h"

namespace CLI {
class App;
}

namespace maskkv::cli {

// A run of given text, or of masks.
struct InfillPiece {
  std::string text;        // empty: masks
  std::int64_t masks = 0;  // 0: text

  bool operator==(const InfillPiece&) const = default;
};

// Text and masks in turn, no piece empty; line ends at the text's end are dropped.
// Errors: INVALID_ARGUMENT: no masks, or a mark of none or of more than 2^31 - 1.
absl::StatusOr<std::vector<InfillPiece>> ParseInfill(std::string_view text);

struct InfillFlags {
  std::string file;  // "-" for standard input
  std::string text;

  // After the flags of decoding: the length of the answer is the text's.
  void Declare(CLI::App& app);
  bool given() const { return !file.empty() || !text.empty(); }

  // What is filled in, and the prompt before it: that of `flags` if they name one.
  // Errors: of ReadInput, ParseInfill and ModelRuntime.
  struct Asked {
    std::vector<std::int32_t> prompt;
    Infill infill;
  };
  absl::StatusOr<Asked> Read(const ModelHost& host, const PromptFlags& flags) const;
};

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_INFILL_FLAGS_H_
