// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/matmul.h"

#include <algorithm>

#include "kernels/base/multiversion.h"
#include "kernels/base/require.h"
#include "kernels/gemm/gemm_scratch.h"
#include "kernels/gemm/panel_product.h"

namespace maskkv::kernels {
namespace {

// Rows that one item multiplies with a panel while it is in the cache.
constexpr std::int64_t kItemRows = 256;
// Items a worker should have, so that one worker's late start does not idle the others.
constexpr std::int64_t kItemsPerWorker = 2;
// Shorter tiles than this waste the product's registers.
constexpr std::int64_t kShortestSplit = 16;

// The tallest tile that leaves every worker its items, or the shortest sensible one.
std::int64_t TileRowsFor(const PanelProduct& product, std::int64_t panels, std::int64_t rows,
                         int threads) {
  const std::int64_t tallest = product.HeightFor(std::min(rows, kRowTile));
  std::int64_t chosen = tallest;
  for (const std::int64_t height : product.heights()) {
    if (height < kShortestSplit || height > tallest) continue;
    const std::int64_t tiles = (rows + height - 1) / height;
    const bool enough = tiles * panels >= kItemsPerWorker * threads;
    if (enough || chosen == tallest) chosen = height;
    if (!enough) break;
  }
  return chosen;
}

MASKKV_MULTIVERSION void CopyRowOut(const float* from, std::int64_t width, float* to) {
  for (std::int64_t i = 0; i < width; ++i) to[i] = from[i];
}

MASKKV_MULTIVERSION void AddRowOut(const float* from, std::int64_t width, float* to) {
  for (std::int64_t i = 0; i < width; ++i) to[i] += from[i];
}

void StoreTile(const float* tile, std::int64_t rows, std::int64_t width, Store store, float* y,
               std::int64_t ldy) {
  const auto store_row = store == Store::kAdd ? AddRowOut : CopyRowOut;
  for (std::int64_t row = 0; row < rows; ++row) store_row(tile + row * width, width, y + row * ldy);
}

void StoreIntegers(const std::int32_t* sums, const ColumnScales& columns, const float* row_scales,
                   std::int64_t rows, std::int64_t width, Store store, float* y, std::int64_t ldy) {
  const auto store_row = store == Store::kAdd ? AddSums : StoreSums;
  for (std::int64_t row = 0; row < rows; ++row) {
    store_row(sums + row * width, columns, row_scales[row], width, y + row * ldy);
  }
}

// [first, last) of the panels that hold a column.
struct Panels {
  std::int64_t first, last;
};

Panels PanelsOf(const PanelProduct& product, Columns columns) {
  Panels panels{0, product.panels()};
  while (panels.first < panels.last && product.PanelBegin(panels.first + 1) <= columns.begin) {
    ++panels.first;
  }
  while (panels.last > panels.first && product.PanelBegin(panels.last - 1) >= columns.end) {
    --panels.last;
  }
  return panels;
}

}  // namespace

void MatMul(WorkerPool& pool, const PackedMatrix& weights, const float* x, std::int64_t rows,
            std::int64_t ldx, float* y, std::int64_t ldy, Store store, GemmWorkspace& workspace) {
  MatMulColumns(pool, weights, {0, weights.out()}, x, rows, ldx, y, ldy, store, workspace);
}

void MatMulColumns(WorkerPool& pool, const PackedMatrix& weights, Columns columns, const float* x,
                   std::int64_t rows, std::int64_t ldx, float* y, std::int64_t ldy, Store store,
                   GemmWorkspace& workspace) {
  MASKKV_REQUIRE(0 <= columns.begin && columns.begin <= columns.end && columns.end <= weights.out(),
                 "columns");
  if (rows == 0 || columns.begin == columns.end) return;
  const PanelProduct& product = weights.product();
  const Panels panels = PanelsOf(product, columns);
  const std::int64_t panel_count = panels.last - panels.first;
  MASKKV_REQUIRE(rows > 0 && ldx >= product.in() && ldy >= product.out(), "shape");
  GemmWorkspace::Impl& scratch = workspace.impl();
  scratch.workers.resize(
      std::max(scratch.workers.size(), static_cast<std::size_t>(pool.threads())));
  const InputTiles tiles(
      pool, product, [&](std::int64_t row) { return x + row * ldx; }, rows, ldx == product.in(),
      TileRowsFor(product, panel_count, rows, pool.threads()), scratch.input);
  // Items go panel by panel, so that a panel is read from memory once however many rows there are.
  const std::int64_t wanted = (kItemsPerWorker * pool.threads() + panel_count - 1) / panel_count;
  const std::int64_t by_rows = (rows + kItemRows - 1) / kItemRows;
  const std::int64_t chunks = std::clamp(std::max(wanted, by_rows), std::int64_t{1}, tiles.count());
  pool.ParallelFor(panel_count * chunks, [&](std::int64_t item, int worker) {
    const std::int64_t panel = panels.first + item / chunks;
    const std::int64_t chunk = item % chunks;
    WorkerScratch& own = scratch.workers[static_cast<std::size_t>(worker)];
    for (std::int64_t tile = chunk * tiles.count() / chunks;
         tile < (chunk + 1) * tiles.count() / chunks; ++tile) {
      const std::int64_t height = tiles.Height(tile);
      float* const target = y + tiles.Begin(tile) * ldy + product.PanelBegin(panel);
      if (product.compute() == DType::kInt8) {
        StoreIntegers(product.MultiplyIntegers(panel, height, tiles.Data(tile), own),
                      product.ScalesOf(panel), tiles.Scales(tile), tiles.Rows(tile),
                      product.PanelWidth(panel), store, target, ldy);
        continue;
      }
      const bool direct = store == Store::kOverwrite && tiles.Rows(tile) == height &&
                          ldy == product.out() &&
                          product.MultiplyInto(panel, height, tiles.Data(tile), target, own);
      if (direct) continue;
      const float* const result = product.Multiply(panel, height, tiles.Data(tile), nullptr, own);
      StoreTile(result, tiles.Rows(tile), product.PanelWidth(panel), store, target, ldy);
    }
  });
}

}  // namespace maskkv::kernels
