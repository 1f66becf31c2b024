// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/panel_product.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/base/multiversion.h"
#include "kernels/base/require.h"
#include "kernels/base/round_up.h"

namespace maskkv::kernels {
namespace {

// A panel slab should stay in a core's second-level cache while row tiles stream past it.
constexpr std::int64_t kPanelBytes = std::int64_t{1} << 19;
// Width of oneDNN's widest block of columns; a narrower panel wastes registers.
constexpr std::int64_t kColumnBlock = 64;

std::int64_t PanelWidthFor(std::int64_t slab, DType storage) {
  const std::int64_t columns = kPanelBytes / (slab * static_cast<std::int64_t>(SizeOf(storage)));
  return std::clamp(columns / kColumnBlock * kColumnBlock, kColumnBlock, kMaxPanelWidth);
}

MASKKV_MULTIVERSION void AddInPlace(const float* source, std::int64_t count, float* target) {
  for (std::int64_t i = 0; i < count; ++i) target[i] += source[i];
}

// f32 that hold integers.
MASKKV_MULTIVERSION void AddExact(const float* source, std::int64_t count, std::int32_t* target) {
  for (std::int64_t i = 0; i < count; ++i) target[i] += static_cast<std::int32_t>(source[i]);
}

// Modulo 2^32: sums of bytes + kInt8Offset may pass what the final differences fit.
MASKKV_MULTIVERSION void AddWrapping(const std::int32_t* source, std::int64_t count,
                                     std::int32_t* target) {
  for (std::int64_t i = 0; i < count; ++i) {
    target[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(target[i]) +
                                          static_cast<std::uint32_t>(source[i]));
  }
}

// Rows [begin, end) of the stacked parts, rounded to `compute` and stored as `storage` at `rows`.
void GatherRows(std::span<const MatrixSource> parts, std::int64_t in, std::int64_t begin,
                std::int64_t end, DType compute, DType storage, AlignedBuffer<float>& wide,
                std::byte* rows) {
  std::int64_t part_begin = 0;
  for (const MatrixSource& part : parts) {
    const std::int64_t first = std::max(begin, part_begin);
    const std::int64_t last = std::min(end, part_begin + part.out);
    if (first < last) {
      const std::int64_t count = (last - first) * in;
      const std::int64_t offset = (first - part_begin) * in;
      std::byte* const target =
          rows + (first - begin) * in * static_cast<std::int64_t>(SizeOf(storage));
      wide.Resize(count);
      if (part.dtype == DType::kBF16) {
        ConvertToFloat(static_cast<const Bf16*>(part.data) + offset, count, wide.data());
      } else {
        std::copy_n(static_cast<const float*>(part.data) + offset, count, wide.data());
      }
      if (storage == DType::kBF16) {
        ConvertToBf16(wide.data(), count, reinterpret_cast<Bf16*>(target));
      } else {
        if (compute == DType::kBF16) RoundToBf16InPlace(wide.data(), count);
        std::copy_n(wide.data(), count, reinterpret_cast<float*>(target));
      }
    }
    part_begin += part.out;
  }
}

}  // namespace

PanelProduct::PanelProduct(std::int64_t out, std::int64_t in, DType compute)
    : out_(out), in_(in), compute_(compute), storage_(compute) {
  MASKKV_REQUIRE(compute != DType::kInt8 || in <= kLongestInt8, "int8 rows are too long");
}

void PanelProduct::CutSlabs(std::int64_t longest) {
  slabs_ = (in_ + longest - 1) / longest;
  // Equal slabs, whole column blocks long.
  slab_ = slabs_ == 1 ? in_ : RoundUp((in_ + slabs_ - 1) / slabs_, kColumnBlock);
}

std::unique_ptr<PanelProduct> PanelProduct::Plan(WorkerPool& pool, std::int64_t out,
                                                 std::int64_t in, DType compute) {
  MASKKV_REQUIRE(out >= 1 && in >= 1, "an empty matrix");
  std::unique_ptr<PanelProduct> product(new PanelProduct(out, in, compute));
  bool found = false;
  // One item: the probes run on the caller, as a worker with single-threaded OpenMP.
  pool.ParallelFor(1, [&](std::int64_t, int) {
    // Our kernels before oneDNN's f32 on AVX-512 without VNNI, too: f32 in wide vectors multiplies
    // a little faster from a cache, but reads four times the bytes, and steps read weights from
    // memory.
    found = product->FindLadders(compute, TileMaker::kOneDnn) ||
            product->FindLadders(compute, TileMaker::kBlocks) ||
            product->FindLadders(DType::kF32, TileMaker::kOneDnn);
  });
  MASKKV_REQUIRE(found, "oneDNN has no f32 product on this machine");
  product->FindHeights();
  return product;
}

void PanelProduct::Pack(WorkerPool& pool, std::span<const MatrixSource> parts, std::byte* packed) {
  std::vector<WorkerScratch> scratch(static_cast<std::size_t>(pool.threads()));
  pool.ParallelFor(panels(), [&](std::int64_t panel, int worker) {
    PackPanel(panel, parts, packed, scratch[static_cast<std::size_t>(worker)]);
  });
  packed_ = packed;
}

std::string PanelProduct::Layout() const {
  const dnnl_version_t& version = *dnnl_version();
  std::string text;
  for (const std::int64_t value :
       {std::int64_t{version.major}, std::int64_t{version.minor}, std::int64_t{version.patch}, out_,
        in_, static_cast<std::int64_t>(compute_), static_cast<std::int64_t>(storage_), panel_width_,
        slab_, slab_stride_, panel_stride_}) {
    text += std::to_string(value) + ',';
  }
  for (const auto& by_slab : ladders_) {
    for (const TileLadder* ladder : by_slab) {
      text += '|';
      if (ladder != nullptr) text += ladder->base().WeightsLayout();
    }
  }
  return text;
}

bool PanelProduct::FindLadders(DType storage, TileMaker maker) {
  storage_ = storage;
  CutSlabs(compute_ == DType::kInt8 && storage == DType::kF32 ? kExactInF32 : kSlab);
  panel_width_ = PanelWidthFor(slab_, storage);
  for (const std::int64_t step : TileLadder::kSteps) {
    if (FindLaddersOfStep(step, maker)) return true;
  }
  return false;
}

bool PanelProduct::FindLaddersOfStep(std::int64_t step, TileMaker maker) {
  step_ = step;
  slab_stride_ = 0;
  for (auto& by_slab : ladders_) std::ranges::fill(by_slab, nullptr);
  for (const std::int64_t panel : {std::int64_t{0}, panels() - 1}) {
    for (const std::int64_t slab : {std::int64_t{0}, slabs_ - 1}) {
      const TileLadder* const ladder =
          TileLadder::Get({SlabLength(slab), PanelWidth(panel), in_, storage_, step, maker});
      if (ladder == nullptr) return false;
      ladders_[panel + 1 == panels()][slab + 1 == slabs_] = ladder;
      const auto bytes = static_cast<std::int64_t>(ladder->base().packed_bytes());
      slab_stride_ = std::max(slab_stride_, RoundUp(bytes, 64));
    }
  }
  panel_stride_ = slabs_ * slab_stride_;
  return true;
}

void PanelProduct::FindHeights() {
  for (std::int64_t index = 0; index < TileLadder::kHeights; ++index) {
    bool everywhere = true;
    for (const auto& by_slab : ladders_) {
      for (const TileLadder* ladder : by_slab) {
        everywhere = everywhere && (ladder == nullptr || ladder->kernel(index) != nullptr);
      }
    }
    if (everywhere) heights_.push_back((index + 1) * step_);
  }
}

void PanelProduct::PackPanel(std::int64_t panel, std::span<const MatrixSource> parts,
                             std::byte* packed, WorkerScratch& scratch) const {
  const auto size = static_cast<std::int64_t>(SizeOf(storage_));
  const DType gathered = compute_ == DType::kInt8 ? DType::kF32 : storage_;
  const std::int64_t width = PanelWidth(panel);
  AlignedBuffer<std::byte> rows(width * in_ * static_cast<std::int64_t>(SizeOf(gathered)));
  GatherRows(parts, in_, PanelBegin(panel), PanelBegin(panel) + width, compute_, gathered,
             scratch.tile, rows.data());
  if (compute_ == DType::kInt8) QuantisePanel(panel, packed, rows);
  for (std::int64_t slab = 0; slab < slabs_; ++slab) {
    LadderOf(panel, slab)
        .base()
        .PackWeights(rows.data() + SlabBegin(slab) * size, in_,
                     packed + panel * panel_stride_ + slab * slab_stride_, scratch.runner);
  }
}

void PanelProduct::QuantisePanel(std::int64_t panel, std::byte* packed,
                                 AlignedBuffer<std::byte>& rows) const {
  const auto* const values = reinterpret_cast<float*>(rows.data());
  auto* const all = reinterpret_cast<float*>(packed + panels() * panel_stride_);
  float* const scales = all + PanelBegin(panel);
  std::int32_t* const offsets = reinterpret_cast<std::int32_t*>(all + out_) + PanelBegin(panel);
  if (storage_ == DType::kF32) {
    for (std::int64_t i = 0; i < PanelWidth(panel); ++i) {
      scales[i] =
          QuantiseRow(values + i * in_, in_, reinterpret_cast<float*>(rows.data()) + i * in_);
      offsets[i] = 0;
    }
    return;
  }
  AlignedBuffer<std::byte> bytes(PanelWidth(panel) * in_);
  for (std::int64_t i = 0; i < PanelWidth(panel); ++i) {
    auto* const q = reinterpret_cast<std::int8_t*>(bytes.data()) + i * in_;
    scales[i] = QuantiseRow(values + i * in_, in_, q);
    // Wrapping, as StoreSums takes it off.
    offsets[i] =
        static_cast<std::int32_t>(static_cast<std::uint32_t>(std::accumulate(q, q + in_, 0)) *
                                  static_cast<std::uint32_t>(kInt8Offset));
  }
  rows = std::move(bytes);
}

const TileLadder& PanelProduct::LadderOf(std::int64_t panel, std::int64_t slab) const {
  return *ladders_[panel + 1 == panels()][slab + 1 == slabs_];
}

std::int64_t PanelProduct::HeightFor(std::int64_t rows) const {
  const auto at = std::lower_bound(heights_.begin(), heights_.end(), rows);
  return at == heights_.end() ? heights_.back() : *at;
}

ColumnScales PanelProduct::ScalesOf(std::int64_t panel) const {
  const auto* const scales = reinterpret_cast<const float*>(packed_ + panels() * panel_stride_);
  const auto* const offsets = reinterpret_cast<const std::int32_t*>(scales + out_);
  return {scales + PanelBegin(panel), offsets + PanelBegin(panel)};
}

const std::int32_t* PanelProduct::MultiplyIntegers(std::int64_t panel, std::int64_t height,
                                                   const void* x, WorkerScratch& scratch) const {
  const std::int64_t index = height / step_ - 1;
  const std::int64_t count = height * PanelWidth(panel);
  scratch.sums.Resize(kRowTile * kMaxPanelWidth);
  for (std::int64_t slab = 0; slab < slabs_; ++slab) {
    const TileKernel& kernel = *LadderOf(panel, slab).kernel(index);
    const std::byte* const from = static_cast<const std::byte*>(x) +
                                  SlabBegin(slab) * static_cast<std::int64_t>(SizeOf(storage_));
    if (storage_ == DType::kF32) {
      scratch.slab.Resize(kRowTile * kMaxPanelWidth);
      kernel.Run(from, PackedAt(panel, slab), scratch.slab.data(), scratch.runner);
      if (slab == 0) std::fill_n(scratch.sums.data(), count, 0);
      AddExact(scratch.slab.data(), count, scratch.sums.data());
    } else if (slab == 0) {
      kernel.Run(from, PackedAt(panel, slab), scratch.sums.data(), scratch.runner);
    } else {
      scratch.slab_sums.Resize(kRowTile * kMaxPanelWidth);
      kernel.Run(from, PackedAt(panel, slab), scratch.slab_sums.data(), scratch.runner);
      AddWrapping(scratch.slab_sums.data(), count, scratch.sums.data());
    }
  }
  return scratch.sums.data();
}

float* PanelProduct::Multiply(std::int64_t panel, std::int64_t height, const void* x,
                              const float* row_scales, WorkerScratch& scratch) const {
  const std::int64_t index = height / step_ - 1;
  const std::int64_t count = height * PanelWidth(panel);
  scratch.tile.Resize(kRowTile * kMaxPanelWidth);
  if (compute_ == DType::kInt8) {
    const std::int64_t width = PanelWidth(panel);
    const std::int32_t* const sums = MultiplyIntegers(panel, height, x, scratch);
    for (std::int64_t row = 0; row < height; ++row) {
      StoreSums(sums + row * width, ScalesOf(panel), row_scales[row], width,
                scratch.tile.data() + row * width);
    }
    return scratch.tile.data();
  }
  LadderOf(panel, 0).kernel(index)->Run(x, PackedAt(panel, 0), scratch.tile.data(), scratch.runner);
  for (std::int64_t slab = 1; slab < slabs_; ++slab) {
    scratch.slab.Resize(kRowTile * kMaxPanelWidth);
    const std::byte* const from = static_cast<const std::byte*>(x) +
                                  SlabBegin(slab) * static_cast<std::int64_t>(SizeOf(storage_));
    LadderOf(panel, slab)
        .kernel(index)
        ->Run(from, PackedAt(panel, slab), scratch.slab.data(), scratch.runner);
    AddInPlace(scratch.slab.data(), count, scratch.tile.data());
  }
  return scratch.tile.data();
}

}  // namespace maskkv::kernels
