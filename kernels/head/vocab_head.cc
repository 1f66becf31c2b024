// SPDX-License-Identifier: Apache-2.0
#include "kernels/head/vocab_head.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/base/require.h"
#include "kernels/gemm/gemm_scratch.h"
#include "kernels/gemm/panel_product.h"

namespace maskkv::kernels {
namespace {

std::int64_t StateBytes(const HeadRow& row) {
  return static_cast<std::int64_t>(row.reducer->state_bytes());
}

// Places every row's panel states.
void PlaceStates(std::span<const HeadRow> rows, std::int64_t panels, HeadWorkspace& workspace) {
  workspace.offsets.Resize(static_cast<std::int64_t>(rows.size()));
  std::int64_t end = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    MASKKV_REQUIRE(StateBytes(rows[i]) % 8 == 0, "a reducer's state is not a multiple of 8 bytes");
    workspace.offsets.data()[i] = end;
    end += panels * StateBytes(rows[i]);
  }
  workspace.states.Resize(end);
}

// Merges the panel states of a row, ascending, into its result.
void MergeRow(const HeadRow& row, const std::byte* states, std::int64_t panels) {
  std::memcpy(row.result, states, row.reducer->state_bytes());
  for (std::int64_t panel = 1; panel < panels; ++panel) {
    row.reducer->Merge(states + panel * StateBytes(row), row.result);
  }
}

}  // namespace

void ProjectVocabulary(WorkerPool& pool, const PackedMatrix& head, std::span<const HeadRow> rows,
                       HeadWorkspace& workspace) {
  if (rows.empty()) return;
  const PanelProduct& product = head.product();
  MASKKV_REQUIRE(product.out() <= std::numeric_limits<std::int32_t>::max(), "vocabulary too large");
  PlaceStates(rows, product.panels(), workspace);
  const auto count = static_cast<std::int64_t>(rows.size());
  const auto at = [&](std::int64_t row) -> const HeadRow& {
    return rows[static_cast<std::size_t>(row)];
  };
  GemmWorkspace::Impl& scratch = workspace.gemm.impl();
  scratch.workers.resize(
      std::max(scratch.workers.size(), static_cast<std::size_t>(pool.threads())));
  const InputTiles tiles(
      pool, product, [&](std::int64_t row, float*) { return at(row).hidden; }, count, nullptr,
      product.HeightFor(std::min(count, kRowTile)), scratch);
  const auto state_of = [&](std::int64_t row, std::int64_t panel) {
    return workspace.states.data() + workspace.offsets.data()[row] + panel * StateBytes(at(row));
  };
  // Panel by panel: the weights are read from memory once.
  pool.ParallelFor(product.panels() * tiles.count(), [&](std::int64_t item, int worker) {
    const std::int64_t panel = item / tiles.count();
    const std::int64_t tile = item % tiles.count();
    const std::int64_t width = product.PanelWidth(panel);
    float* const logits =
        product.Multiply(panel, tiles.Height(tile), tiles.Data(tile), tiles.Scales(tile),
                         scratch.workers[static_cast<std::size_t>(worker)]);
    for (std::int64_t i = 0; i < tiles.Rows(tile); ++i) {
      const std::int64_t row = tiles.Begin(tile) + i;
      std::byte* const state = state_of(row, panel);
      at(row).reducer->Init(state);
      at(row).reducer->Consume(at(row).tag, static_cast<std::int32_t>(product.PanelBegin(panel)),
                               {logits + i * width, static_cast<std::size_t>(width)}, state);
    }
  });
  pool.ParallelFor(
      count, [&](std::int64_t row, int) { MergeRow(at(row), state_of(row, 0), product.panels()); });
}

}  // namespace maskkv::kernels
