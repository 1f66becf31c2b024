// SPDX-License-Identifier: Apache-2.0
#include "services/decode/filled_spans.h"

#include "core/base/check.h"
#include "core/model/tokenizer.h"
#include "maskkv/v1/decode.pb.h"

namespace maskkv::decode {

void FillSpans(std::span<const std::int32_t> canvas, const services::ModelRuntime& model,
               v1::Finished& finished) {
  const std::span tokens(finished.tokens().data(),
                         static_cast<std::size_t>(finished.tokens_size()));
  MASKKV_CHECK(canvas.empty() || canvas.size() == tokens.size(), "the whole canvas");
  const auto masked = [&](std::size_t i) {
    return canvas.empty() || canvas[i] == model.config().mask_id;
  };
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (!masked(i)) continue;
    if (i == 0 || !masked(i - 1)) finished.add_spans()->set_position(static_cast<std::int64_t>(i));
    finished.mutable_spans(finished.spans_size() - 1)->add_tokens(tokens[i]);
  }
  if (model.tokenizer() == nullptr) return;
  for (v1::Span& span : *finished.mutable_spans()) {
    span.set_text(model.tokenizer()->Decode(
        std::span(span.tokens().data(), static_cast<std::size_t>(span.tokens_size())),
        /*skip_special=*/true));
  }
}

}  // namespace maskkv::decode
