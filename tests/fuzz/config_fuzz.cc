// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a config.json: an error of one line, or a configuration with its invariants.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/base/check.h"
#include "core/model/config.h"
#include "core/model/tensor_names.h"
#include "tests/fuzz/message_check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace maskkv;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = model::ParseModelConfig(text, "config.json");
  if (!config.ok()) {
    CheckMessage(config.status(), "config.json");
    return 0;
  }
  MASKKV_CHECK(config->hidden == config->heads * config->head_dim, "heads fill the width");
  MASKKV_CHECK(config->head_dim % 2 == 0, "rotation pairs dimensions");
  MASKKV_CHECK(config->heads % config->kv_heads == 0, "KV heads are shared evenly");
  MASKKV_CHECK(config->vocab_size <= config->vocab_rows, "every id has a row");
  MASKKV_CHECK(config->mask_id >= 0 && config->mask_id < config->vocab_rows, "the mask has a row");
  MASKKV_CHECK(config->mask_id != config->eos_id, "a mask is no end");
  for (const auto& spec : model::ListTensors(model::TensorsOf(*config))) {
    for (const std::int64_t extent : spec.shape) MASKKV_CHECK(extent > 0, "shapes are positive");
  }
  return 0;
}
