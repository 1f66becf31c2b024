// SPDX-License-Identifier: Apache-2.0
//
// What was kept of a prompt, head by head, wherever it was decided: in this process or by a running
// service. As a text picture and as JSON. Kept positions tell about the prompt: treat them like it.
#ifndef MASKKV_SERVICES_MASKKV_KEPT_PICTURE_H_
#define MASKKV_SERVICES_MASKKV_KEPT_PICTURE_H_

#include <cstdint>
#include <vector>

#include "services/maskkv/generation.h"
#include "services/maskkv/json_report.h"

namespace maskkv::cli {

struct KeptPicture {
  struct Head {
    double preference = 0;                // for the prompt, equation 14; 0 to 1
    std::vector<std::int32_t> positions;  // ascending, below prompt_tokens
  };
  std::int64_t prompt_tokens = 0;
  std::int64_t masks = 0;
  std::int64_t bytes = 0;                // of the entry that holds the pairs
  double mass = 0;                       // kept share of the mask-query score, 0 to 1
  double rope_scale = 1;                 // of the keys
  std::vector<std::vector<Head>> heads;  // layers x KV heads

  std::int64_t pairs() const;
};

KeptPicture PictureOf(const PrefilledPrompt& prefilled);

// docs/inspect.schema.json says what it holds.
Json PictureJson(const KeptPicture& picture);
void PrintPicture(const KeptPicture& picture);

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_KEPT_PICTURE_H_
