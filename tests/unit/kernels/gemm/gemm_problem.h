// SPDX-License-Identifier: Apache-2.0
//
// Random products for the tests of kernels/gemm.
#ifndef MASKKV_TESTS_UNIT_KERNELS_GEMM_GEMM_PROBLEM_H_
#define MASKKV_TESTS_UNIT_KERNELS_GEMM_GEMM_PROBLEM_H_

#include <cstdint>
#include <vector>

#include "kernels/base/dtype.h"
#include "kernels/gemm/matmul.h"
#include "tests/support/seed.h"

namespace maskkv::kernels {

struct GemmProblem {
  std::int64_t rows, in, out;
  std::vector<float> x = maskkv::testing::NormalValues(rows * in, 1);
  std::vector<float> w = maskkv::testing::NormalValues(out * in, 2);

  PackedMatrix Pack(WorkerPool& pool, DType compute) const {
    const MatrixSource source{w.data(), DType::kF32, out};
    return PackedMatrix::Pack(pool, {&source, 1}, in, compute);
  }
};

// MatMul of contiguous rows [begin, begin + rows) of a problem into a fresh vector.
inline std::vector<float> RowsOf(WorkerPool& pool, const PackedMatrix& weights,
                                 const GemmProblem& problem, std::int64_t begin,
                                 std::int64_t rows) {
  std::vector<float> y(static_cast<std::size_t>(rows * problem.out), -1.0F);
  GemmWorkspace workspace;
  MatMul(pool, weights, problem.x.data() + begin * problem.in, rows, problem.in, y.data(),
         problem.out, Store::kOverwrite, workspace);
  return y;
}

}  // namespace maskkv::kernels

#endif  // MASKKV_TESTS_UNIT_KERNELS_GEMM_GEMM_PROBLEM_H_
