// SPDX-License-Identifier: Apache-2.0
//
// What the readers of config.json share: checked fields of one JSON object, and a reader a family.
// Internal to core/model. Every reader fails with INVALID_ARGUMENT "FILE: field F: expected ...,
// found ..."; a field that is not there fails unless a comment says otherwise. Pure functions.
#ifndef MASKKV_CORE_MODEL_CONFIG_FIELDS_H_
#define MASKKV_CORE_MODEL_CONFIG_FIELDS_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "core/model/config.h"
#include "core/model/json_reader.h"

namespace maskkv::model {

// An integer from 1 to max.
absl::Status ReadSize(const JsonField& root, std::string_view name, std::int64_t max,
                      std::int64_t& out);

// A number strictly between the bounds.
absl::Status ReadNumber(const JsonField& root, std::string_view name, double above, double below,
                        double& out);

// The one value that is supported.
absl::Status RequireBool(const JsonField& root, std::string_view name, bool only);
absl::Status RequireString(const JsonField& root, std::string_view name, std::string_view only);
absl::Status RequireNull(const JsonField& root, std::string_view name);

// heads, kv_heads and hidden as read: sets head_dim.
// Errors: heads_name if it does not divide hidden or the quotient is odd; kv_name if it does not
// divide heads. hidden_name is for the messages.
struct HeadFields {
  std::string_view hidden, heads, kv_heads;
};
absl::Status SetHeadDim(const JsonField& root, const HeadFields& names, ModelConfig& config);

// eos_token_id and pad_token_id, rows of the vocabulary. REQUIRES: vocab_rows is set.
absl::Status ReadEosAndPad(const JsonField& root, ModelConfig& config);
// mask_token_id, a row of the vocabulary and not the eos. REQUIRES: vocab_rows and eos_id are set.
absl::Status ReadMaskId(const JsonField& root, ModelConfig& config);

// torch_dtype, empty if it is not there.
absl::Status ReadTorchDtype(const JsonField& root, ModelConfig& config);

// What Dream and LLaDA-MoE name alike, as Hugging Face's own models do: hidden_size,
// num_hidden_layers, num_attention_heads, num_key_value_heads, vocab_size,
// max_position_embeddings, rope_theta, rms_norm_eps, tie_word_embeddings, eos and pad; hidden_act
// must be silu and rope_scaling null.
absl::Status ReadHuggingFaceShape(const JsonField& root, ModelConfig& config);

// The families. model_type is read; each sets family and everything else.
absl::Status ReadLlada(const JsonField& root, ModelConfig& config);
absl::Status ReadDream(const JsonField& root, ModelConfig& config);
absl::Status ReadLladaMoe(const JsonField& root, ModelConfig& config);

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_CONFIG_FIELDS_H_
