// SPDX-License-Identifier: Apache-2.0
//
// One question of maskkv evaluate, answered by every cell. Not thread safe.
#ifndef MASKKV_SERVICES_MASKKV_EVALUATION_DECODE_H_
#define MASKKV_SERVICES_MASKKV_EVALUATION_DECODE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "core/engine/kv.h"
#include "services/maskkv/evaluation_cell.h"
#include "services/maskkv/model_host.h"
#include "services/maskkv/questions.h"

namespace maskkv::cli {

struct AskedQuestion {
  const Question& question;
  std::uint64_t number = 0;  // from 0; the seed of random eviction
  const std::vector<std::int32_t>& prompt;
  // By index of KeptPrompt; null without a cache.
  const std::vector<std::shared_ptr<const engine::KvView>>& entries;
};

// Decodes an answer for every cell and counts it there. alone: one after the other, each question
// beginning with another cell, so that none is always the first to be timed; else in one batch.
// A refresh that a cell's parameters ask for is a prefill under the plan of its KeptPrompt.
// Errors: of the engine; CANCELLED when interrupted.
absl::Status DecodeCells(ModelHost& host, const AskedQuestion& asked,
                         std::span<const KeptPrompt> kept, bool alone, std::span<Cell> cells);

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_EVALUATION_DECODE_H_
