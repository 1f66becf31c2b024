// SPDX-License-Identifier: Apache-2.0
//
// What a running service would keep of a prompt.
#ifndef MASKKV_SERVICES_MASKKV_REMOTE_PICTURE_H_
#define MASKKV_SERVICES_MASKKV_REMOTE_PICTURE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "core/model/rope_scaling.h"
#include "services/maskkv/common_flags.h"
#include "services/maskkv/kept_picture.h"

namespace maskkv::cli {

// Asks the prefill service at `server` (RPC Explain; its model, profile and arithmetic), without
// keeping anything there.
// Errors: of reading the prompt; of the call, each starting with the address; UNAVAILABLE when
// nobody answers there; DATA_LOSS for an answer that contradicts itself; CANCELLED by a signal.
absl::StatusOr<KeptPicture> AskForPicture(const std::string& server, const PromptFlags& prompt,
                                          std::int64_t masks, const CacheFlags& cache,
                                          const model::RopeScaling& rope = {});

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_REMOTE_PICTURE_H_
