// SPDX-License-Identifier: Apache-2.0
#include "core/transformer/weights.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "kernels/gemm/quantise.h"

namespace maskkv::transformer {
namespace {

using kernels::DType;

// `count` elements of a tensor, widened to f32.
void WidenTo(const std::byte* data, DType dtype, std::int64_t count, float* out) {
  if (dtype == DType::kF32) {
    std::copy_n(reinterpret_cast<const float*>(data), count, out);
  } else {
    kernels::ConvertToFloat(reinterpret_cast<const kernels::Bf16*>(data), count, out);
  }
}

// The vectors one after the other; nothing for specs without a name.
absl::Status LoadVectors(const model::Checkpoint& checkpoint,
                         std::span<const model::TensorSpec> specs,
                         kernels::AlignedBuffer<float>& out) {
  std::int64_t size = 0;
  for (const model::TensorSpec& spec : specs) {
    if (!spec.name.empty()) size += spec.shape[0];
  }
  out.Resize(size);
  float* next = out.data();
  for (const model::TensorSpec& spec : specs) {
    if (spec.name.empty()) continue;
    MASKKV_ASSIGN_OR_RETURN(const model::Weight weight, checkpoint.Tensor(spec));
    WidenTo(weight.data, weight.dtype, weight.shape[0], next);
    next += weight.shape[0];
  }
  return absl::OkStatus();
}

absl::Status LoadVector(const model::Checkpoint& checkpoint, const model::TensorSpec& spec,
                        kernels::AlignedBuffer<float>& out) {
  return LoadVectors(checkpoint, {&spec, 1}, out);
}

// Lists the matrices that are to be packed, with the tensors that each stacks by rows.
class Packer {
 public:
  Packer(const model::Checkpoint& checkpoint, DType compute)
      : checkpoint_(checkpoint), compute_(compute) {}

  // out: stays where it is until the weights are loaded.
  absl::Status Pack(std::span<const model::TensorSpec> specs, kernels::PackedMatrix& out) {
    return PackAs(compute_, specs, out);
  }

  // A matrix that decides between experts.
  absl::Status PackRouter(const model::TensorSpec& spec, kernels::PackedMatrix& out) {
    return PackAs(kernels::PairDType(compute_), {&spec, 1}, out);
  }

  absl::Status PackFfn(const model::TensorSpec& gate, const model::TensorSpec& up,
                       const model::TensorSpec& down, FfnWeights& out) {
    MASKKV_RETURN_IF_ERROR(Pack(std::array{gate, up}, out.gate_up));
    return Pack(std::array{down}, out.down);
  }

  std::span<const MatrixToPack> matrices() const { return matrices_; }

 private:
  absl::Status PackAs(DType compute, std::span<const model::TensorSpec> specs,
                      kernels::PackedMatrix& out) {
    const std::int64_t in = specs[0].shape[1];
    if (compute == DType::kInt8 && in > kernels::kLongestInt8) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "tensor %s: expected rows of at most %d values with int8 weights, found %d",
          specs[0].name, kernels::kLongestInt8, in));
    }
    MatrixToPack matrix{.name = "", .parts = {}, .in = in, .compute = compute, .matrix = &out};
    for (const model::TensorSpec& spec : specs) {
      MASKKV_ASSIGN_OR_RETURN(const model::Weight weight, checkpoint_.Tensor(spec));
      matrix.parts.push_back({weight.data, weight.dtype, weight.shape[0]});
      matrix.name += (matrix.name.empty() ? "" : "|") + spec.name;
    }
    matrices_.push_back(std::move(matrix));
    return absl::OkStatus();
  }

  const model::Checkpoint& checkpoint_;
  const DType compute_;
  std::vector<MatrixToPack> matrices_;
};

absl::Status LoadBlock(const model::Checkpoint& source, const model::BlockTensors& block,
                       Packer& packer, LayerWeights& layer) {
  MASKKV_RETURN_IF_ERROR(LoadVector(source, block.attn_norm, layer.attn_norm));
  MASKKV_RETURN_IF_ERROR(LoadVector(source, block.ffn_norm, layer.ffn_norm));
  MASKKV_RETURN_IF_ERROR(packer.Pack(std::array{block.query}, layer.query));
  MASKKV_RETURN_IF_ERROR(packer.Pack(std::array{block.key, block.value}, layer.key_value));
  MASKKV_RETURN_IF_ERROR(packer.Pack(std::array{block.attn_out}, layer.attn_out));
  MASKKV_RETURN_IF_ERROR(LoadVector(source, block.query_bias, layer.query_bias));
  MASKKV_RETURN_IF_ERROR(
      LoadVectors(source, std::array{block.key_bias, block.value_bias}, layer.key_value_bias));
  MASKKV_RETURN_IF_ERROR(LoadVector(source, block.query_norm, layer.query_norm));
  MASKKV_RETURN_IF_ERROR(LoadVector(source, block.key_norm, layer.key_norm));
  if (block.experts.empty()) return packer.PackFfn(block.gate, block.up, block.down, layer.ffn);
  MASKKV_RETURN_IF_ERROR(packer.PackRouter(block.router, layer.router));
  layer.experts.reserve(block.experts.size());
  for (const model::ExpertTensors& expert : block.experts) {
    MASKKV_RETURN_IF_ERROR(
        packer.PackFfn(expert.gate, expert.up, expert.down, layer.experts.emplace_back()));
  }
  return absl::OkStatus();
}

}  // namespace

std::int64_t FfnWeights::bytes() const { return gate_up.bytes() + down.bytes(); }

std::int64_t LayerWeights::bytes() const {
  std::int64_t total =
      query.bytes() + key_value.bytes() + attn_out.bytes() + ffn.bytes() + router.bytes();
  for (const kernels::AlignedBuffer<float>* vector :
       {&attn_norm, &ffn_norm, &query_bias, &key_value_bias, &query_norm, &key_norm}) {
    total += vector->capacity_bytes();
  }
  for (const FfnWeights& expert : experts) total += expert.bytes();
  return total;
}

absl::StatusOr<Weights> Weights::Load(model::Checkpoint checkpoint, const LoadOptions& options,
                                      kernels::WorkerPool& pool) {
  Weights weights(std::move(checkpoint));
  weights.compute_ = options.compute;
  const model::Checkpoint& source = weights.checkpoint_;
  const model::ModelTensors& tensors = source.tensors();
  MASKKV_ASSIGN_OR_RETURN(const model::Weight embedding, source.Tensor(tensors.embedding));
  weights.embedding_ = embedding.data;
  weights.embedding_dtype_ = embedding.dtype;

  Packer packer(source, options.compute);
  weights.layers_.resize(tensors.blocks.size());
  for (std::size_t layer = 0; layer < tensors.blocks.size(); ++layer) {
    if (options.only_layer && *options.only_layer != static_cast<std::int64_t>(layer)) continue;
    MASKKV_RETURN_IF_ERROR(
        LoadBlock(source, tensors.blocks[layer], packer, weights.layers_[layer]));
  }
  MASKKV_RETURN_IF_ERROR(LoadVector(source, tensors.final_norm, weights.final_norm_));
  MASKKV_RETURN_IF_ERROR(packer.Pack(std::array{tensors.head}, weights.head_));
  if (options.cache_folder.empty()) {
    PackAll(packer.matrices(), pool);
  } else {
    weights.origin_ =
        TakeFromCache(options.cache_folder, source, packer.matrices(), options.compute, pool);
  }
  return weights;
}

void Weights::Embed(std::int32_t token, float* out) const {
  const std::int64_t width = config().hidden;
  MASKKV_CHECK(token >= 0 && token < config().vocab_rows, "a token within the vocabulary");
  const std::int64_t offset =
      token * width * static_cast<std::int64_t>(kernels::SizeOf(embedding_dtype_));
  WidenTo(embedding_ + offset, embedding_dtype_, width, out);
}

std::int64_t Weights::packed_bytes() const {
  std::int64_t bytes = final_norm_.capacity_bytes() + head_.bytes();
  for (const LayerWeights& layer : layers_) bytes += layer.bytes();
  return bytes;
}

}  // namespace maskkv::transformer
