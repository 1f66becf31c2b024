// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/panel_product.h"

#include <algorithm>

#include "kernels/base/multiversion.h"
#include "kernels/base/require.h"

namespace maskkv::kernels {
namespace {

constexpr std::int64_t RoundUp(std::int64_t value, std::int64_t step) {
  return (value + step - 1) / step * step;
}

// A panel slab should stay in a core's second-level cache while row tiles stream past it.
constexpr std::int64_t kPanelBytes = std::int64_t{1} << 19;
// Width of oneDNN's widest block of columns; a narrower panel wastes registers.
constexpr std::int64_t kColumnBlock = 64;

std::int64_t PanelWidthFor(std::int64_t slab, DType storage) {
  const std::int64_t columns = kPanelBytes / (slab * static_cast<std::int64_t>(SizeOf(storage)));
  return std::clamp(columns / kColumnBlock * kColumnBlock, kColumnBlock, kMaxPanelWidth);
}

// Wider outputs have no direct kernels: the probe of a vocabulary's would need more memory than the
// copy that they save is worth, and the head takes tiles anyway. Neither have sums of slabs.
constexpr std::int64_t kWidestDirect = 1 << 15;

std::int64_t DirectStride(std::int64_t out, std::int64_t slabs) {
  return out <= kWidestDirect && slabs == 1 ? out : 0;
}

MASKKV_MULTIVERSION void AddInPlace(const float* source, std::int64_t count, float* target) {
  for (std::int64_t i = 0; i < count; ++i) target[i] += source[i];
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
  slabs_ = (in + kSlab - 1) / kSlab;
  // Equal slabs, whole column blocks long.
  slab_ = slabs_ == 1 ? in : RoundUp((in + slabs_ - 1) / slabs_, kColumnBlock);
}

std::unique_ptr<PanelProduct> PanelProduct::Plan(WorkerPool& pool, std::int64_t out,
                                                 std::int64_t in, DType compute) {
  MASKKV_REQUIRE(out >= 1 && in >= 1, "an empty matrix");
  std::unique_ptr<PanelProduct> product(new PanelProduct(out, in, compute));
  bool found = false;
  // One item: the probes run on the caller, as a worker with single-threaded OpenMP.
  pool.ParallelFor(1, [&](std::int64_t, int) {
    found = product->FindLadders(compute) || product->FindLadders(DType::kF32);
  });
  MASKKV_REQUIRE(found, "oneDNN has no f32 product on this machine");
  product->FindHeights();
  return product;
}

void PanelProduct::Pack(WorkerPool& pool, std::span<const MatrixSource> parts, std::byte* packed) {
  std::vector<WorkerScratch> scratch(static_cast<std::size_t>(pool.threads()));
  pool.ParallelFor(panels(), [&](std::int64_t panel, int worker) {
    PackPanel(panel, parts, packed + panel * panel_stride_,
              scratch[static_cast<std::size_t>(worker)]);
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

bool PanelProduct::FindLadders(DType storage) {
  storage_ = storage;
  panel_width_ = PanelWidthFor(slab_, storage);
  for (const std::int64_t step : TileLadder::kSteps) {
    if (FindLaddersOfStep(step)) return true;
  }
  return false;
}

bool PanelProduct::FindLaddersOfStep(std::int64_t step) {
  step_ = step;
  slab_stride_ = 0;
  for (auto& by_slab : ladders_) std::ranges::fill(by_slab, nullptr);
  for (const std::int64_t panel : {std::int64_t{0}, panels() - 1}) {
    for (const std::int64_t slab : {std::int64_t{0}, slabs_ - 1}) {
      const TileLadder* const ladder = TileLadder::Get(
          {SlabLength(slab), PanelWidth(panel), in_, DirectStride(out_, slabs_), storage_, step});
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
  const std::int64_t width = PanelWidth(panel);
  AlignedBuffer<std::byte> rows(width * in_ * size);
  GatherRows(parts, in_, PanelBegin(panel), PanelBegin(panel) + width, compute_, storage_,
             scratch.tile, rows.data());
  for (std::int64_t slab = 0; slab < slabs_; ++slab) {
    LadderOf(panel, slab)
        .base()
        .PackWeights(rows.data() + SlabBegin(slab) * size, in_, packed + slab * slab_stride_,
                     scratch.runner);
  }
}

const TileLadder& PanelProduct::LadderOf(std::int64_t panel, std::int64_t slab) const {
  return *ladders_[panel + 1 == panels()][slab + 1 == slabs_];
}

std::int64_t PanelProduct::HeightFor(std::int64_t rows) const {
  const auto at = std::lower_bound(heights_.begin(), heights_.end(), rows);
  return at == heights_.end() ? heights_.back() : *at;
}

float* PanelProduct::Multiply(std::int64_t panel, std::int64_t height, const void* x,
                              WorkerScratch& scratch) const {
  const std::int64_t index = height / step_ - 1;
  const std::int64_t count = height * PanelWidth(panel);
  scratch.tile.Resize(kRowTile * kMaxPanelWidth);
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

bool PanelProduct::MultiplyInto(std::int64_t panel, std::int64_t height, const void* x, float* y,
                                WorkerScratch& scratch) const {
  const TileKernel* const kernel = LadderOf(panel, 0).direct_kernel(height / step_ - 1);
  if (kernel == nullptr) return false;
  kernel->Run(x, PackedAt(panel, 0), y, scratch.runner);
  return true;
}

}  // namespace maskkv::kernels
