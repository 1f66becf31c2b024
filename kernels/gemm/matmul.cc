// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/matmul.h"

#include <algorithm>
#include <span>

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
  std::int64_t count() const { return last - first; }
};

Panels PanelsOf(const PanelProduct& product, Columns columns) {
  if (columns.begin == columns.end) return {0, 0};
  const std::int64_t width = product.PanelWidth(0);  // all but the last are as wide
  return {columns.begin / width, (columns.end + width - 1) / width};
}

// One tile of rows with one panel of a product, stored where it belongs.
void MultiplyTile(const Product& to, std::int64_t panel, const InputTiles& tiles, std::int64_t tile,
                  WorkerScratch& own) {
  const PanelProduct& product = to.weights->product();
  const std::int64_t height = tiles.Height(tile);
  float* const target = to.y + tiles.Begin(tile) * to.ldy + product.PanelBegin(panel);
  if (product.compute() == DType::kInt8) {
    StoreIntegers(product.MultiplyIntegers(panel, height, tiles.Data(tile), own),
                  product.ScalesOf(panel), tiles.Scales(tile), tiles.Rows(tile),
                  product.PanelWidth(panel), to.store, target, to.ldy);
    return;
  }
  const float* const result = product.Multiply(panel, height, tiles.Data(tile), nullptr, own);
  StoreTile(result, tiles.Rows(tile), product.PanelWidth(panel), to.store, target, to.ldy);
}

// Products of equal tile heights and storage. in_place: x, if its rows lie one after another.
void RunTogether(WorkerPool& pool, std::span<const Product> products, RowSource x,
                 std::int64_t rows, const float* in_place, GemmWorkspace& workspace) {
  std::int64_t panel_count = 0;
  for (const Product& product : products) {
    const PanelProduct& panels = product.weights->product();
    const Columns columns = product.columns;
    MASKKV_REQUIRE(
        0 <= columns.begin && columns.begin <= columns.end && columns.end <= panels.out(),
        "columns");
    MASKKV_REQUIRE(rows == 0 || product.ldy >= panels.out(), "shape");
    panel_count += PanelsOf(panels, columns).count();
  }
  MASKKV_REQUIRE(rows >= 0, "negative number of rows");
  if (rows == 0 || panel_count == 0) return;
  GemmWorkspace::Impl& scratch = workspace.impl();
  scratch.workers.resize(
      std::max(scratch.workers.size(), static_cast<std::size_t>(pool.threads())));
  const PanelProduct& any = products.front().weights->product();
  const InputTiles tiles(pool, any, x, rows, in_place,
                         TileRowsFor(any, panel_count, rows, pool.threads()), scratch);
  // Items go panel by panel, so that a panel is read from memory once however many rows there are.
  const std::int64_t wanted = (kItemsPerWorker * pool.threads() + panel_count - 1) / panel_count;
  const std::int64_t by_rows = (rows + kItemRows - 1) / kItemRows;
  const std::int64_t chunks = std::clamp(std::max(wanted, by_rows), std::int64_t{1}, tiles.count());
  pool.ParallelFor(panel_count * chunks, [&](std::int64_t item, int worker) {
    std::int64_t panel = item / chunks;
    const std::int64_t chunk = item % chunks;
    const Product* product = products.data();
    Panels own = PanelsOf(product->weights->product(), product->columns);
    for (; panel >= own.count(); own = PanelsOf(product->weights->product(), product->columns)) {
      panel -= own.count();
      ++product;
    }
    for (std::int64_t tile = chunk * tiles.count() / chunks;
         tile < (chunk + 1) * tiles.count() / chunks; ++tile) {
      MultiplyTile(*product, own.first + panel, tiles, tile,
                   scratch.workers[static_cast<std::size_t>(worker)]);
    }
  });
}

}  // namespace

void MatMul(WorkerPool& pool, const PackedMatrix& weights, const float* x, std::int64_t rows,
            std::int64_t ldx, float* y, std::int64_t ldy, Store store, GemmWorkspace& workspace) {
  MatMulColumns(pool, weights, {0, weights.out()}, x, rows, ldx, y, ldy, store, workspace);
}

void MatMulColumns(WorkerPool& pool, const PackedMatrix& weights, Columns columns, const float* x,
                   std::int64_t rows, std::int64_t ldx, float* y, std::int64_t ldy, Store store,
                   GemmWorkspace& workspace) {
  MASKKV_REQUIRE(rows == 0 || ldx >= weights.in(), "shape");
  const Product product{&weights, columns, y, ldy, store};
  RunTogether(
      pool, {&product, 1}, [&](std::int64_t row, float*) { return x + row * ldx; }, rows,
      ldx == weights.in() ? x : nullptr, workspace);
}

void MatMulRows(WorkerPool& pool, std::span<const Product> products, RowSource x, std::int64_t rows,
                GemmWorkspace& workspace) {
  const PanelProduct& first = products.front().weights->product();
  bool together = true;
  for (const Product& product : products) {
    const PanelProduct& other = product.weights->product();
    MASKKV_REQUIRE(other.in() == first.in() && other.compute() == first.compute(), "other rows");
    together = together && other.storage() == first.storage() &&
               std::ranges::equal(other.heights(), first.heights());
  }
  if (together) return RunTogether(pool, products, x, rows, nullptr, workspace);
  for (const Product& product : products) {
    RunTogether(pool, {&product, 1}, x, rows, nullptr, workspace);
  }
}

}  // namespace maskkv::kernels
