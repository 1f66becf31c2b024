// SPDX-License-Identifier: Apache-2.0
#include "core/engine/document_copy.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/error.h"
#include "kernels/base/cached_row.h"

namespace maskkv::engine {
namespace {

// Columns of one head, (tokens, head_dim) at `from`, into rows `ld` apart. scales: of int8 rows.
void ReadHead(const void* from, const float* scales, kernels::DType dtype, std::int64_t tokens,
              std::int64_t head_dim, float* to, std::int64_t ld) {
  for (std::int64_t token = 0; token < tokens; ++token, to += ld) {
    if (dtype == kernels::DType::kF32) {
      std::copy_n(static_cast<const float*>(from) + token * head_dim, head_dim, to);
    } else if (dtype == kernels::DType::kInt8) {
      kernels::DequantiseRow(static_cast<const std::int8_t*>(from) + token * head_dim,
                             scales[token], head_dim, to);
    } else {
      kernels::ConvertToFloat(static_cast<const kernels::Bf16*>(from) + token * head_dim, head_dim,
                              to);
    }
  }
}

}  // namespace

absl::StatusOr<DocumentCopy> DocumentCopy::Of(const KvView& entry, std::int64_t tokens) {
  if (tokens < 1 || entry.memory() != MemoryKind::kHost) {
    return absl::InvalidArgumentError(
        absl::StrFormat("document: expected at least 1 token in host memory, found %d", tokens));
  }
  for (std::int64_t layer = 0; layer < entry.shape().layers; ++layer) {
    for (std::int64_t head = 0; head < entry.shape().kv_heads; ++head) {
      // They ascend strictly, so that as many as there are tokens are all of them.
      const std::span<const std::int32_t> positions = entry.Positions(layer, head);
      const auto pairs = std::ranges::lower_bound(positions, tokens) - positions.begin();
      if (pairs == tokens) continue;
      return MakeError(
          absl::StatusCode::kFailedPrecondition, "DOCUMENT_NOT_WHOLE",
          absl::StrFormat("document: layer %d: head %d: expected all %d pairs, found %d: only an "
                          "entry that keeps every pair can be voted over",
                          layer, head, tokens, pairs));
    }
  }
  return DocumentCopy(entry, tokens);
}

void DocumentCopy::ReadLayer(kernels::WorkerPool& workers, std::int64_t layer, float* kv) const {
  const EntryShape& shape = entry_->shape();
  const std::int64_t width = shape.kv_heads * shape.head_dim;
  const std::span<const kernels::CachedHead> heads = entry_->Layer(layer);
  workers.ParallelFor(shape.kv_heads, [&](std::int64_t head, int) {
    const kernels::CachedHead& cached = heads[static_cast<std::size_t>(head)];
    float* const keys = kv + head * shape.head_dim;
    ReadHead(cached.k, cached.k_scales, shape.dtype, tokens_, shape.head_dim, keys, 2 * width);
    ReadHead(cached.v, cached.v_scales, shape.dtype, tokens_, shape.head_dim, keys + width,
             2 * width);
  });
}

absl::Status CheckDocument(const DocumentCopy& document, const model::ModelConfig& config,
                           std::span<const Row> rows, double rope_scale) {
  const EntryShape& shape = document.shape();
  if (shape.layers != config.layers || shape.kv_heads != config.kv_heads ||
      shape.head_dim != config.head_dim) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "document: expected an entry of %d layers, %d KV heads of width %d, found %d, %d, %d",
        config.layers, config.kv_heads, config.head_dim, shape.layers, shape.kv_heads,
        shape.head_dim));
  }
  if (shape.rope_scale != rope_scale) {
    return absl::FailedPreconditionError(
        absl::StrFormat("document: expected keys rotated with the request's rope_scale %g, found "
                        "%g",
                        rope_scale, shape.rope_scale));
  }
  for (std::int64_t i = 0; i < document.tokens(); ++i) {
    if (i < std::ssize(rows) && rows[static_cast<std::size_t>(i)].role == Role::kPrompt &&
        rows[static_cast<std::size_t>(i)].position == i) {
      continue;
    }
    return absl::InvalidArgumentError(absl::StrFormat(
        "rows: row %d: expected a prompt row at position %d, which the document's copy stands for, "
        "found none",
        i, i));
  }
  return absl::OkStatus();
}

}  // namespace maskkv::engine
