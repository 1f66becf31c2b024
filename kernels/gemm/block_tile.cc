// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/block_tile.h"

#include <algorithm>
#include <cstring>

#include "kernels/base/multiversion.h"
#include "kernels/base/round_up.h"
#include "kernels/gemm/register_block.h"

namespace maskkv::kernels {
namespace {

using BlockProduct = void (*)(const RegisterBlock& block);

// Bytes between the ends of widened rows, which would else start in the same few sets of a cache.
constexpr std::int64_t kRowGap = 64;
// Of a sum, f32 or s32.
constexpr std::int64_t kSumBytes = 4;

// Null where there is none. The limit that oneDNN is given holds for us too: one switch shows what
// a lesser machine does.
BlockProduct ProductOf([[maybe_unused]] DType dtype) {
#if defined(__x86_64__)
  const bool allowed = (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx2) == dnnl_cpu_isa_avx2;
  if (allowed && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    if (dtype == DType::kBF16) return MultiplyBf16Avx2;
    if (dtype == DType::kInt8) return MultiplyInt8Avx2;
  }
#endif
  return nullptr;
}

MASKKV_MULTIVERSION void WidenBytes(const std::uint8_t* from, std::int64_t n, std::int16_t* to) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = from[i];
}

// Where register_block.h wants value k of a column.
std::int64_t PlaceOf(std::int64_t k, std::int64_t column, DType dtype) {
  if (dtype == DType::kInt8) return k / 2 * 2 * kBlockColumns + column * 2 + k % 2;
  constexpr std::int64_t kHalf = kBlockColumns / 2;
  return k * kBlockColumns + column % kHalf * 2 + column / kHalf;
}

template <typename T>
void PackColumn(const T* from, std::int64_t depth, std::int64_t column, DType dtype, T* block) {
  for (std::int64_t k = 0; k < depth; ++k) block[PlaceOf(k, column, dtype)] = from[k];
}

class BlockTile final : public TileKernel {
 public:
  BlockTile(const TileShape& shape, BlockProduct product) : shape_(shape), product_(product) {}

  std::size_t packed_bytes() const override {
    return static_cast<std::size_t>(BlockBytes(shape_.k) * Blocks());
  }
  std::string WeightsLayout() const override;
  void PackWeights(const void* w, std::int64_t ldw, void* packed,
                   TileRunner& runner) const override;
  void Run(const void* x, const void* packed, void* y, TileRunner& runner) const override;

 private:
  bool integers() const { return shape_.dtype == DType::kInt8; }
  std::int64_t Blocks() const { return (shape_.n + kBlockColumns - 1) / kBlockColumns; }
  // With the zero that an odd number of bytes lacks.
  std::int64_t Padded(std::int64_t depth) const { return integers() ? RoundUp(depth, 2) : depth; }
  std::int64_t WideBytes() const { return integers() ? 2 : 4; }
  std::int64_t BlockBytes(std::int64_t depth) const {
    return Padded(depth) * kBlockColumns * static_cast<std::int64_t>(SizeOf(shape_.dtype));
  }
  // From one widened row to the next.
  std::int64_t RowBytes() const {
    return RoundUp(Padded(std::min(shape_.k, kBlockDepth)) * WideBytes(), 64) + kRowGap;
  }

  void WidenRow(const std::byte* x, std::int64_t depth, std::byte* wide) const;
  void MultiplyRows(RegisterBlock block) const;

  const TileShape shape_;
  const BlockProduct product_;
};

std::string BlockTile::WeightsLayout() const {
  std::string text = "register blocks,";
  for (const std::int64_t value :
       {static_cast<std::int64_t>(shape_.dtype), shape_.k, shape_.n, kBlockDepth, kBlockColumns}) {
    text += std::to_string(value) + ',';
  }
  return text;
}

void BlockTile::PackWeights(const void* w, std::int64_t ldw, void* packed, TileRunner&) const {
  const auto size = static_cast<std::int64_t>(SizeOf(shape_.dtype));
  const auto* const from = static_cast<const std::byte*>(w);
  auto* to = static_cast<std::byte*>(packed);
  for (std::int64_t k = 0; k < shape_.k; k += kBlockDepth) {
    const std::int64_t depth = std::min(kBlockDepth, shape_.k - k);
    for (std::int64_t begin = 0; begin < shape_.n; begin += kBlockColumns) {
      const std::int64_t columns = std::min(kBlockColumns, shape_.n - begin);
      std::memset(to, 0, static_cast<std::size_t>(BlockBytes(depth)));
      for (std::int64_t column = 0; column < columns; ++column) {
        const std::byte* const values = from + ((begin + column) * ldw + k) * size;
        if (integers()) {
          PackColumn(reinterpret_cast<const std::int8_t*>(values), depth, column, shape_.dtype,
                     reinterpret_cast<std::int8_t*>(to));
        } else {
          PackColumn(reinterpret_cast<const Bf16*>(values), depth, column, shape_.dtype,
                     reinterpret_cast<Bf16*>(to));
        }
      }
      to += BlockBytes(depth);
    }
  }
}

void BlockTile::WidenRow(const std::byte* x, std::int64_t depth, std::byte* wide) const {
  if (integers()) {
    auto* const values = reinterpret_cast<std::int16_t*>(wide);
    WidenBytes(reinterpret_cast<const std::uint8_t*>(x), depth, values);
    if (depth % 2 != 0) values[depth] = 0;
  } else {
    ConvertToFloat(reinterpret_cast<const Bf16*>(x), depth, reinterpret_cast<float*>(wide));
  }
}

// All rows of the tile, in blocks as equal as can be: a block of one or two rows waits for its own
// sums.
void BlockTile::MultiplyRows(RegisterBlock block) const {
  const std::int64_t blocks = (shape_.rows + kBlockRows - 1) / kBlockRows;
  const auto* const x = static_cast<const std::byte*>(block.x);
  auto* const y = static_cast<std::byte*>(block.y);
  for (std::int64_t i = 0; i < blocks; ++i) {
    const std::int64_t begin = i * shape_.rows / blocks;
    block.rows = (i + 1) * shape_.rows / blocks - begin;
    block.x = x + begin * RowBytes();
    block.y = y + begin * block.ldy * kSumBytes;
    product_(block);
  }
}

void BlockTile::Run(const void* x, const void* packed, void* y, TileRunner& runner) const {
  const auto size = static_cast<std::int64_t>(SizeOf(shape_.dtype));
  const std::int64_t wide_bytes = shape_.rows * RowBytes();
  std::byte* const wide = runner.Scratch(wide_bytes + shape_.rows * kBlockColumns * kSumBytes);
  std::byte* const apart = wide + wide_bytes;  // sums of a block whose columns are not all there
  auto* const target = static_cast<std::byte*>(y);
  const auto* w = static_cast<const std::byte*>(packed);
  const std::int64_t whole = shape_.n / kBlockColumns * kBlockColumns;
  for (std::int64_t k = 0; k < shape_.k; k += kBlockDepth) {
    const std::int64_t depth = std::min(kBlockDepth, shape_.k - k);
    for (std::int64_t row = 0; row < shape_.rows; ++row) {
      WidenRow(static_cast<const std::byte*>(x) + (row * shape_.ldx + k) * size, depth,
               wide + row * RowBytes());
    }
    RegisterBlock block{wide,  RowBytes() / WideBytes(), w, target, shape_.ldy, 0, Padded(depth),
                        k != 0};
    for (std::int64_t begin = 0; begin < shape_.n; begin += kBlockColumns) {
      block.w = w;
      block.y = begin < whole ? target + begin * kSumBytes : apart;
      block.ldy = begin < whole ? shape_.ldy : kBlockColumns;
      MultiplyRows(block);
      w += BlockBytes(depth);
    }
  }
  for (std::int64_t row = 0; whole < shape_.n && row < shape_.rows; ++row) {
    std::memcpy(target + (row * shape_.ldy + whole) * kSumBytes,
                apart + row * kBlockColumns * kSumBytes,
                static_cast<std::size_t>((shape_.n - whole) * kSumBytes));
  }
}

}  // namespace

std::unique_ptr<const TileKernel> MakeBlockTile(const TileShape& shape) {
  const BlockProduct product = ProductOf(shape.dtype);
  return product == nullptr ? nullptr : std::make_unique<const BlockTile>(shape, product);
}

}  // namespace maskkv::kernels
