// SPDX-License-Identifier: Apache-2.0
//
// Rotation tables of one model, one for each factor of its base (core/model/rope_scaling.h): built
// on first use, the ones used last are kept. Not thread safe; tables are immutable.
#ifndef MASKKV_CORE_TRANSFORMER_ROPE_TABLES_H_
#define MASKKV_CORE_TRANSFORMER_ROPE_TABLES_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/model/config.h"
#include "kernels/base/dtype.h"
#include "kernels/rope/rope.h"

namespace maskkv::transformer {

// Consecutive rows that are rotated with one table.
struct RopeRun {
  std::int64_t rows = 0;
  const kernels::RopeTable* table = nullptr;
};

// Appends rows to a list of runs; those that continue the last run make it longer.
void AddRopeRun(const RopeRun& run, std::vector<RopeRun>& runs);

class RopeTables {
 public:
  // Tables that stay without a user.
  static constexpr std::size_t kKept = 4;
  // The shortest table, if max_positions allows: so that short prompts share one.
  static constexpr std::int64_t kShortest = 1024;

  // compute: of the weights; counts where config.rope_in_compute_dtype.
  RopeTables(const model::ModelConfig& config, kernels::DType compute, std::int64_t max_positions);

  std::int64_t max_positions() const { return max_positions_; }

  // The table of rope_theta * scale for positions [0, positions) at least. It lives as long as
  // somebody holds it, kept here or not. One that is too short is built anew, twice as long.
  // Rotations do not depend on a table's length.
  // REQUIRES: CheckRopeScale(scale); 0 <= positions <= max_positions().
  std::shared_ptr<const kernels::RopeTable> Get(double scale, std::int64_t positions);

  std::size_t size() const { return tables_.size(); }  // kept now
  void CheckInvariants() const;

 private:
  struct Kept {
    double scale = 1;
    std::shared_ptr<const kernels::RopeTable> table;
  };

  const double theta_;
  const std::int64_t head_dim_;
  const kernels::DType precision_;
  const std::int64_t max_positions_;
  std::vector<Kept> tables_;  // of distinct scales, used last first
};

}  // namespace maskkv::transformer

#endif  // MASKKV_CORE_TRANSFORMER_ROPE_TABLES_H_
