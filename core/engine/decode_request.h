// SPDX-License-Identifier: Apache-2.0
//
// What the decoder (core/engine/decode.h) is asked and what it tells. Plain values.
#ifndef MASKKV_CORE_ENGINE_DECODE_REQUEST_H_
#define MASKKV_CORE_ENGINE_DECODE_REQUEST_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "core/decoding/prediction.h"
#include "core/engine/generate_params.h"
#include "core/engine/kv.h"

namespace maskkv::engine {

using decoding::Prediction;

using RequestId = std::uint64_t;

struct DecodeRequest {
  // The last tokens of the prompt, which every step recomputes at positions prompt_tokens -
  // prompt.size() to prompt_tokens - 1: the whole prompt without a cache; with one, what the entry
  // is not to serve (PrefixView cuts a view), which may be nothing. No pair of the entry lies at a
  // position that is recomputed. A model with shifted logits needs at least the prompt's last token
  // (RecomputedTail): the first mask is predicted from its row.
  std::vector<std::int32_t> prompt;
  // Where the response starts: prompt tokens at positions 0 .. prompt_tokens - 1.
  std::int64_t prompt_tokens = 0;
  // What the canvas starts with: (params.gen_length) ids, the mask id where nothing is decided, at
  // least once. Empty: nothing but masks. No other id with growth or guidance.
  std::vector<std::int32_t> response;
  // How many tokens the prompt goes on with after the response, and their ids if every step
  // recomputes them: without a cache always; with one, empty if the entry serves them. None with
  // growth or guidance.
  std::int64_t suffix_tokens = 0;
  std::vector<std::int32_t> suffix;
  GenerateParams params;
  // The prompt's entry; null recomputes the prompt in every step.
  std::shared_ptr<const KvView> cache;
  // Of a guided request with an entry: that of a prompt of as many masks, prefilled alike and cut
  // to the same positions. Null otherwise.
  std::shared_ptr<const KvView> unconditional;
  // rope_theta is multiplied by it; with an entry, its shape().rope_scale. 1: as trained.
  double rope_scale = 1;
  // Events also tell what the other masked positions would be now: vocabulary head rows more, the
  // same tokens.
  bool provisional = false;
};

// What one step did for one request.
struct StepEvent {
  RequestId request = 0;
  std::int64_t step = 0;  // 0-based over all blocks
  // Computed for this request: recomputed prompt and response, both twice if it is guided.
  std::int64_t rows = 0;
  std::int64_t reused_rows = 0;       // the others: layers added what they had kept of them
  std::vector<Prediction> committed;  // by ascending position
  // What each position that is still masked would be, by ascending position, in all blocks; those
  // whose logits are no numbers are left out. Empty unless asked for.
  std::vector<Prediction> provisional;
  // With refresh_floor: the share of the predicting rows' attention that fell on kept pairs, the
  // mean over candidates, layers and heads. None in steps that recompute a share of rows.
  std::optional<double> kept_mass;
  std::int64_t response_cache_bytes = 0;  // that the request holds for its response cache
  // Masks that the canvas grew by (core/engine/growth.h). Before the first commit a step that grows
  // it commits nothing, and the next one has the same number.
  std::int64_t grown = 0;
  // The request waits for SwapCache with an entry of PromptThenResponse(prompt, canvas tokens,
  // suffix).
  bool refresh_due = false;
  FinishReason finish_reason = FinishReason::kNone;
  absl::Status status;  // not OK: the request failed and takes no further step
};

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_DECODE_REQUEST_H_
