// SPDX-License-Identifier: Apache-2.0
//
// Nothing on the way from a file to logits counts bytes or elements in 32 bits: a checkpoint of
// LLaDA-8B's shapes is 16 GB, and rows that lie 2^32 bytes and 2^31 elements apart give the bits of
// rows that lie together. bench_shape runs a layer of these shapes as a whole.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <vector>

#include "core/transformer/transformer.h"
#include "kernels/attention/mask_scores.h"
#include "kernels/compact/gather.h"
#include "kernels/gemm/matmul.h"
#include "tests/support/seed.h"
#include "tests/unit/core/model/family_checkpoints.h"
#include "tests/unit/core/model/published_configs.h"
#include "tests/unit/core/model/sparse_checkpoint.h"

namespace maskkv::transformer {
namespace {

using maskkv::testing::NormalValues;

constexpr std::int64_t kStride = std::int64_t{1} << 20;  // floats between rows
constexpr std::int64_t kRows = 2100;                     // the last one starts after 2^31 floats

// (kRows, kStride) floats of which only those that are touched take memory.
class FarRows {
 public:
  FarRows()
      : memory_(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
  FarRows(const FarRows&) = delete;
  FarRows& operator=(const FarRows&) = delete;
  ~FarRows() {
    if (given()) ::munmap(memory_, kBytes);
  }
  bool given() const { return memory_ != MAP_FAILED; }
  float* data() { return static_cast<float*>(memory_); }

  void Take(const std::vector<float>& rows, std::int64_t width) {
    for (std::int64_t row = 0; row < kRows; ++row) {
      std::copy_n(rows.data() + row * width, width, data() + row * kStride);
    }
  }
  std::vector<float> Give(std::int64_t width) {
    std::vector<float> rows;
    for (std::int64_t row = 0; row < kRows; ++row) {
      rows.insert(rows.end(), data() + row * kStride, data() + row * kStride + width);
    }
    return rows;
  }

 private:
  static constexpr std::size_t kBytes = kRows * kStride * sizeof(float);
  void* memory_;
};

TEST(FarOffsets, EveryTensorOfLlada8BIsReadWhereItLies) {
  const model::TemporaryFolder folder;
  model::SparseCheckpoint file(folder.path(), model::Llada8B());
  const std::vector<model::TensorSpec> specs = model::ListTensors(file.tensors());
  float value = 1;
  for (const model::TensorSpec& spec : specs) {
    file.Set(spec, 0, value++);
    file.Set(spec,
             std::accumulate(spec.shape.begin(), spec.shape.end(), std::int64_t{1},
                             std::multiplies<>()) -
                 1,
             value++);
  }
  EXPECT_GT(file.file_bytes(), std::int64_t{16} * 1'000'000'000);
  EXPECT_LT(file.disk_bytes(), std::int64_t{64} << 20);
  const auto checkpoint = model::Checkpoint::Open(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->weight_bytes(), 2 * model::CountParameters(checkpoint->config()));
  value = 1;
  for (const model::TensorSpec& spec : specs) {
    const model::Weight weight = *checkpoint->Tensor(spec);
    const auto* const elements = reinterpret_cast<const kernels::Bf16*>(weight.data);
    std::int64_t count = 1;
    for (const std::int64_t extent : weight.shape) count *= extent;
    // Values above 256 have no bf16 of their own; neighbours of a tensor still differ.
    EXPECT_EQ(elements[0].bits, kernels::ToBf16(value++).bits) << spec.name;
    EXPECT_EQ(elements[count - 1].bits, kernels::ToBf16(value++).bits) << spec.name;
  }
}

TEST(FarOffsets, ProductsScoresAndGathersOfFarRowsAreTheSameBits) {
  FarRows far_x, far_y;
  if (!far_x.given() || !far_y.given()) GTEST_SKIP() << "no room for addresses";
  constexpr std::int64_t kWidth = 32;
  kernels::WorkerPool pool(2);
  const std::vector<float> x = NormalValues(kRows * kWidth, 1), w = NormalValues(8 * kWidth, 2);
  far_x.Take(x, kWidth);
  const kernels::MatrixSource source{w.data(), kernels::DType::kF32, 8};
  for (const kernels::DType dtype : {kernels::DType::kF32, kernels::DType::kBF16}) {
    const auto matrix = kernels::PackedMatrix::Pack(pool, {&source, 1}, kWidth, dtype);
    kernels::GemmWorkspace workspace;
    std::vector<float> y(kRows * 8);
    kernels::MatMul(pool, matrix, x.data(), kRows, kWidth, y.data(), 8, kernels::Store::kOverwrite,
                    workspace);
    kernels::MatMul(pool, matrix, far_x.data(), kRows, kStride, far_y.data(), kStride,
                    kernels::Store::kOverwrite, workspace);
    EXPECT_EQ(far_y.Give(8), y);
  }

  const kernels::AttentionShape shape{.heads = 2, .kv_heads = 2, .head_dim = 16};
  const std::vector<float> queries = NormalValues(3 * kWidth, 3), lse = NormalValues(2 * 3, 4);
  std::vector<float> scores(2 * kRows), far_scores(2 * kRows);
  kernels::AttentionWorkspace workspace;
  kernels::MaskQueryScores(pool, shape, queries.data(), kWidth, 3, lse.data(), x.data(), kWidth,
                           kRows, scores.data(), workspace);
  kernels::MaskQueryScores(pool, shape, queries.data(), kWidth, 3, lse.data(), far_x.data(),
                           kStride, kRows, far_scores.data(), workspace);
  EXPECT_EQ(far_scores, scores);

  const std::vector<std::int32_t> kept{0, 1000, kRows - 1};
  std::vector<float> gathered(3 * 16), far_gathered(3 * 16);
  kernels::GatherRows(x.data() + 16, kWidth, 16, kept, kernels::DType::kF32, gathered.data(),
                      nullptr);
  kernels::GatherRows(far_x.data() + 16, kStride, 16, kept, kernels::DType::kF32,
                      far_gathered.data(), nullptr);
  EXPECT_EQ(far_gathered, gathered);
}

TEST(FarOffsets, AttentionOverFarKeysIsTheSameBits) {
  FarRows far;
  if (!far.given()) GTEST_SKIP() << "no room for addresses";
  const model::TemporaryFolder folder;
  model::WriteRandomCheckpoint(folder, model::FamilyConfig("llada"), 1);
  kernels::WorkerPool pool(2);
  const Weights weights =
      *Weights::Load(*model::Checkpoint::Open(folder.path()), kernels::DType::kF32, pool);
  Transformer transformer(weights, pool, kRows);
  const auto rope = transformer.Rope(1, kRows);
  const std::int64_t half = transformer.kv_width(), ld = 2 * half;
  const std::vector<float> kv = NormalValues(kRows * ld, 1);
  far.Take(kv, ld);
  const std::vector<float> hidden = NormalValues(5 * transformer.hidden(), 2);
  const std::vector<std::int32_t> positions{0, 1, 1000, kRows - 2, kRows - 1};
  const auto run = [&](const float* keys, std::int64_t stride) {
    std::vector<float> out = hidden;
    const AttentionSource source{.rows = 5,
                                 .rope = rope.get(),
                                 .keys = keys,
                                 .values = keys + half,
                                 .ldkv = stride,
                                 .own_rows = kRows,
                                 .cached = {},
                                 .cached_dtype = kernels::DType::kF32,
                                 .log_sum_exp = nullptr};
    transformer.Advance(0, out.data(), 5, positions.data(), {&source, 1});
    return out;
  };
  EXPECT_EQ(run(far.data(), kStride), run(kv.data(), ld));
}

}  // namespace
}  // namespace maskkv::transformer
