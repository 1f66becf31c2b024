// SPDX-License-Identifier: Apache-2.0
//
// Decode: diffusion steps of many requests as one ragged batch. Requests with different prompts,
// lengths, budgets and schedules join and leave between steps; nothing is padded, so a request's
// tokens do not depend on its neighbours or on the number of threads, bit for bit.
//
// Each step recomputes every response row of every request over [kept prompt pairs | response rows]
// (or the whole canvas when a request has no cache; or [kept pairs of a document | question rows |
// response rows] when an entry serves another question over its document). The response lies at the
// end of the prompt or within it: pairs and rows may be at positions after the response's too. The
// step then projects the masked rows of the current blocks onto the vocabulary (with shifted
// logits, the rows before them), and commits by each request's rule (core/decoding/rule.h), what
// its automaton allows, if it has one (core/engine/constraint.h).
//
// A request may recompute a share of its rows only (core/engine/response_cache.h).
//
// A guided request (GenerateParams::cfg_scale) has its rows in the batch twice: behind its prompt
// and behind as many masks in its place, each with its own entry if it has one; the two rows of
// logits of a mask are combined before it is predicted.
//
// A request that refreshes its entry (core/engine/refresh.h) says so in its event and takes no step
// until SwapCache has given it another one; the others step on.
//
// Ownership: borrows the transformer, shares each request's entry until it leaves. Not thread safe.
#ifndef MASKKV_CORE_ENGINE_DECODE_H_
#define MASKKV_CORE_ENGINE_DECODE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/engine/canvas.h"
#include "core/engine/decode_request.h"
#include "core/engine/feature_batch.h"
#include "core/engine/generate_params.h"
#include "core/engine/kept_mass.h"
#include "core/engine/kv.h"
#include "core/engine/mask_mixer.h"
#include "core/engine/refresh.h"
#include "core/transformer/transformer.h"
#include "kernels/base/aligned_buffer.h"

namespace maskkv::engine {

class TokenSampler;

class Decoder {
 public:
  explicit Decoder(transformer::Transformer& transformer)
      : transformer_(transformer), features_(transformer) {}

  // The request takes part from the next step on.
  // Errors: INVALID_ARGUMENT (parameters, prompt, response, length, an entry with pairs where rows
  // are recomputed, an unconditional entry too many or missing), FAILED_PRECONDITION (the entry
  // belongs to another model's shape, its keys were rotated with another rope_scale).
  absl::StatusOr<RequestId> Add(DecodeRequest request);

  // The request leaves now, finished or not. Errors: NOT_FOUND.
  absl::Status Remove(RequestId id);

  // The request's canvas; null if it is not here. Valid until it is removed.
  const Canvas* Find(RequestId id) const;

  // The features that the request keeps; null if it is not here or keeps none. Valid as above.
  const ResponseCache* FindResponseCache(RequestId id) const;

  // A paused request stays as it is and takes no step until it is paused no more.
  // Errors: NOT_FOUND.
  absl::Status SetPaused(RequestId id, bool paused);

  // Between steps: the request goes on over this entry, whether or not a refresh was due. Its next
  // step recomputes all rows.
  // Errors: NOT_FOUND; INVALID_ARGUMENT (no entry, or the request has none), and as Add's of the
  // entry: then nothing has changed.
  absl::Status SwapCache(RequestId id, std::shared_ptr<const KvView> cache);

  // Requests that the next step will advance.
  std::int64_t running() const;

  // One denoising step of every running request; one event each, by ascending id. Finished and
  // failed requests stay, without a further step, until they are removed.
  std::vector<StepEvent> Step();

  void CheckInvariants() const;

 private:
  struct Request {
    DecodeRequest request;
    Canvas canvas;
    std::shared_ptr<const kernels::RopeTable> rope;
    RefreshSchedule refresh;
    std::unique_ptr<ResponseCache> response_cache;  // null: all rows in every step
    std::optional<MaskMixer> mixer;                 // of a rule that mixes
    bool failed = false;
    bool paused = false;

    bool running() const { return !failed && !paused && !canvas.finished() && !refresh.due(); }
  };
  // Rows of one request in a step's batch.
  struct Sequence {
    RequestId id = 0;
    Request* request = nullptr;
    bool unconditional = false;  // the rows behind the masked prompt, right after the others
    std::int64_t first_row = 0;  // in the batch
    std::int64_t rows = 0;
    // In the last layer's predicting rows: candidates, watched, then provisional.
    std::int64_t first_query = 0;
    std::int64_t queries = 0;
    std::int64_t candidates = 0;
    // Masks behind them whose end is watched; what else predicts is provisional.
    std::int64_t watched = 0;
    double kept_mass = 0;  // summed over layers, heads and candidates, if it is measured

    const KvView* cache() const {
      return (unconditional ? request->request.unconditional : request->request.cache).get();
    }
  };
  // Rows of a block in progress, of a sequence whose kept mass is measured.
  struct WatchedRun {
    Sequence* sequence = nullptr;
    std::int64_t first = 0;      // of its rows; without features, of its queries in the last layer
    std::int64_t block_row = 0;  // where they lie in the block
    transformer::AttentionSource source;
  };

  absl::Status CheckRequest(const DecodeRequest& request) const;
  absl::Status CheckCache(const DecodeRequest& request, const KvView& cache) const;
  // Of a response and a suffix, and what they exclude.
  absl::Status CheckFilling(const DecodeRequest& request) const;
  absl::Status CheckGuidance(const DecodeRequest& request) const;
  void GatherRows();
  void AddRows(Sequence sequence);
  void GatherQueries(Sequence& sequence);
  // Candidates of the sequence that are shown as a mix.
  void GatherMixes(const Sequence& sequence);
  void RunLayers();
  // How far before a masked row the row lies whose output predicts it.
  std::int64_t shift() const { return transformer_.config().shifted_logits ? 1 : 0; }
  // Advances every row, or in the last layer the gathered rows that predict, through `layer`.
  void Advance(std::int64_t layer, bool masked_rows_only);
  // Before a block is advanced: has the source report what MeasureKept needs afterwards.
  void Watch(Sequence& sequence, std::int64_t first, std::int64_t block_row,
             transformer::AttentionSource& source);
  static bool Measures(const Sequence& sequence);
  void MeasureKept(bool masked_rows_only);
  std::optional<double> KeptMass(const Sequence& sequence) const;
  void GatherMaskedRows();
  // The row in the batch of an answer position; of -1, the row before the answer.
  static std::int64_t AnswerRow(const Sequence& sequence, std::int64_t answer);
  void BeginFeatures();
  std::span<const std::int64_t> QueryAnswers(const Sequence& sequence) const;
  std::vector<StepEvent> Sample();
  // rows: of all the request's sequences.
  StepEvent Commit(const Sequence& sequence, const TokenSampler& sampler, std::int64_t rows,
                   std::span<const std::optional<Prediction>> predicted);
  // How certain the end of the sequence's canvas is, by this step's predictions; 1 if unwatched.
  double EndCertainty(const Sequence& sequence, const TokenSampler& sampler) const;
  // After the commit: what the sequence's masks are mixed of from now on.
  void UpdateMixes(const Sequence& sequence, const TokenSampler& sampler);

  transformer::Transformer& transformer_;
  std::map<RequestId, Request> requests_;
  RequestId next_id_ = 1;

  // The step in progress.
  std::vector<Sequence> sequences_;  // by ascending id, but those in between come last
  std::int64_t whole_rows_ = 0;      // of the others: K and V of all their rows are computed
  std::vector<std::int32_t> tokens_, positions_, query_positions_;
  std::vector<transformer::MixedRow> mixed_rows_;
  std::vector<std::int64_t> query_answers_;      // what the rows at query_positions_ predict
  std::vector<transformer::RopeRun> rotations_;  // of the whole rows
  std::vector<transformer::AttentionSource> sources_;
  kernels::AlignedBuffer<float> hidden_;        // (rows, hidden)
  kernels::AlignedBuffer<float> query_hidden_;  // (predicting rows, hidden)
  kernels::AlignedBuffer<float> normed_;        // (predicting rows, hidden)
  kernels::AlignedBuffer<float> kv_;            // (rows, 2 * kv_width)
  kernels::AlignedBuffer<float> queries_;       // (rows, query_width)
  std::vector<WatchedRun> watched_;
  kernels::AlignedBuffer<float> watched_log_sum_exp_;  // (heads, block)
  KeptMassMeter kept_mass_;
  FeatureBatch features_;
};

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_DECODE_H_
