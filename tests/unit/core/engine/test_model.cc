// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/core/engine/test_model.h"

namespace maskkv::engine {

TestModel::TestModel(const std::string& directory, kernels::DType dtype, int threads,
                     std::int64_t max_positions)
    : pool(threads),
      weights(ValueOrDie(
          transformer::Weights::Load(ValueOrDie(model::Checkpoint::Open(directory)), dtype, pool))),
      transformer(weights, pool, max_positions) {}

}  // namespace maskkv::engine
