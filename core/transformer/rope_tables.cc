// SPDX-License-Identifier: Apache-2.0
#include "core/transformer/rope_tables.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "core/base/check.h"

namespace maskkv::transformer {

void AddRopeRun(const RopeRun& run, std::vector<RopeRun>& runs) {
  if (!runs.empty() && runs.back().table == run.table) {
    runs.back().rows += run.rows;
  } else {
    runs.push_back(run);
  }
}

RopeTables::RopeTables(const model::ModelConfig& config, kernels::DType compute,
                       std::int64_t max_positions)
    : theta_(config.rope_theta),
      head_dim_(config.head_dim),
      precision_(config.rope_in_compute_dtype ? compute : kernels::DType::kF32),
      max_positions_(max_positions) {}

std::shared_ptr<const kernels::RopeTable> RopeTables::Get(double scale, std::int64_t positions) {
  MASKKV_CHECK(scale >= 1 && positions >= 0 && positions <= max_positions_, "a table that can be");
  const auto known = std::ranges::find(tables_, scale, &Kept::scale);
  Kept wanted{scale, nullptr};
  if (known != tables_.end()) {
    wanted = std::move(*known);
    tables_.erase(known);
  }
  if (wanted.table == nullptr || wanted.table->positions() < positions) {
    const auto rounded = static_cast<std::int64_t>(
        std::bit_ceil(static_cast<std::uint64_t>(std::max(positions, kShortest))));
    wanted.table.reset();  // before the longer one takes its memory
    wanted.table = std::make_shared<const kernels::RopeTable>(kernels::RopeTable::Build(
        theta_ * scale, head_dim_, std::min(rounded, max_positions_), precision_));
  }
  tables_.insert(tables_.begin(), wanted);
  if (tables_.size() > kKept) tables_.pop_back();
  return wanted.table;
}

void RopeTables::CheckInvariants() const {
  MASKKV_CHECK(tables_.size() <= kKept, "a bounded number of tables");
  for (std::size_t i = 0; i < tables_.size(); ++i) {
    MASKKV_CHECK(tables_[i].table != nullptr && tables_[i].table->positions() <= max_positions_,
                 "a table within the model's positions");
    for (std::size_t j = 0; j < i; ++j) {
      MASKKV_CHECK(tables_[j].scale != tables_[i].scale, "a table a factor");
    }
  }
}

}  // namespace maskkv::transformer
