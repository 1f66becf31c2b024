// SPDX-License-Identifier: Apache-2.0
//
// A checkpoint of tests/data, loaded for a test.
#ifndef MASKKV_TESTS_UNIT_CORE_ENGINE_TEST_MODEL_H_
#define MASKKV_TESTS_UNIT_CORE_ENGINE_TEST_MODEL_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "core/transformer/transformer.h"

namespace maskkv::engine {

// A file of the checkout that cannot be read is a broken checkout: nothing to assert on.
template <typename T>
T ValueOrDie(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "%s\n", std::string(value.status().message()).c_str());
    std::abort();
  }
  return std::move(value).value();
}

// A loaded model on a pool of its own.
struct TestModel {
  TestModel(const std::string& directory, kernels::DType dtype, int threads,
            std::int64_t max_positions);

  kernels::WorkerPool pool;
  transformer::Weights weights;
  transformer::Transformer transformer;
};

}  // namespace maskkv::engine

#endif  // MASKKV_TESTS_UNIT_CORE_ENGINE_TEST_MODEL_H_
