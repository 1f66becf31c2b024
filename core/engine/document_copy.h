// SPDX-License-Identifier: Apache-2.0
//
// A document's whole K and V, computed once and asked about many times: every pair at its first
// positions, of every layer and head, out of an entry that kept them all (Selection::kFull). A
// prefill over it (PrefillForward::document) computes the question's rows and the masks only, and
// votes of several questions over it can be combined (document_vote.h).
//
// What it costs in truth: attention is bidirectional, so the document's K and V are those of the
// forward that made them, with its question in place. docs/adr/0016-document-copy.md.
//
// Borrows the entry. Immutable, so any thread may read it while the entry lives.
#ifndef MASKKV_CORE_ENGINE_DOCUMENT_COPY_H_
#define MASKKV_CORE_ENGINE_DOCUMENT_COPY_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/engine/kv.h"
#include "core/engine/prompt.h"
#include "core/model/config.h"
#include "kernels/parallel/worker_pool.h"

namespace maskkv::engine {

class DocumentCopy {
 public:
  // The entry's pairs at positions 0 to tokens - 1; it may have others after them.
  // Errors: INVALID_ARGUMENT (tokens < 1, the entry is not in host memory), FAILED_PRECONDITION
  // (DOCUMENT_NOT_WHOLE): a head has fewer pairs there.
  static absl::StatusOr<DocumentCopy> Of(const KvView& entry, std::int64_t tokens);

  std::int64_t tokens() const { return tokens_; }
  const EntryShape& shape() const { return entry_->shape(); }

  // Writes a layer's pairs as a forward has them: kv (tokens, 2 * kv_heads * head_dim) f32, a row
  // K of all heads, then V of all heads. REQUIRES: 0 <= layer < shape().layers.
  void ReadLayer(kernels::WorkerPool& workers, std::int64_t layer, float* kv) const;

 private:
  DocumentCopy(const KvView& entry, std::int64_t tokens) : entry_(&entry), tokens_(tokens) {}

  const KvView* entry_;
  std::int64_t tokens_;
};

// Whether the copy can stand for the first rows of a forward: they are prompt rows at positions 0
// to tokens - 1 and it is of this model, rotated with rope_scale.
// Errors: INVALID_ARGUMENT (rows), FAILED_PRECONDITION (shape, rope_scale).
absl::Status CheckDocument(const DocumentCopy& document, const model::ModelConfig& config,
                           std::span<const Row> rows, double rope_scale);

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_DOCUMENT_COPY_H_
