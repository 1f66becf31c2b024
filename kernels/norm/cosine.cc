// SPDX-License-Identifier: Apache-2.0
#include "kernels/norm/cosine.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/multiversion.h"

namespace maskkv::kernels {
namespace {

struct Products {
  double ab, aa, bb;
};

void Fold(double* lanes) {
  for (std::int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
}

MASKKV_MULTIVERSION Products SumProducts(const float* a, const float* b, std::int64_t n) {
  double ab[kLanes] = {};
  double aa[kLanes] = {};
  double bb[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const double x = a[i + lane];
      const double y = b[i + lane];
      ab[lane] += x * y;
      aa[lane] += x * x;
      bb[lane] += y * y;
    }
  }
  for (std::int64_t lane = 0; i < n; ++i, ++lane) {
    ab[lane] += double{a[i]} * b[i];
    aa[lane] += double{a[i]} * a[i];
    bb[lane] += double{b[i]} * b[i];
  }
  Fold(ab);
  Fold(aa);
  Fold(bb);
  return {ab[0], aa[0], bb[0]};
}

double CosineOf(const Products& sums) {
  if (sums.aa == 0.0 && sums.bb == 0.0) return 1.0;
  if (sums.aa == 0.0 || sums.bb == 0.0) return 0.0;
  // clamp keeps NaN: both comparisons are false.
  return std::clamp(sums.ab / (std::sqrt(sums.aa) * std::sqrt(sums.bb)), -1.0, 1.0);
}

}  // namespace

double CosineSimilarity(const float* a, const float* b, std::int64_t n) {
  return CosineOf(SumProducts(a, b, n));
}

double CosineSimilarityRef(const float* a, const float* b, std::int64_t n) {
  Products sums{0.0, 0.0, 0.0};
  for (std::int64_t i = 0; i < n; ++i) {
    sums.ab += double{a[i]} * b[i];
    sums.aa += double{a[i]} * a[i];
    sums.bb += double{b[i]} * b[i];
  }
  return CosineOf(sums);
}

}  // namespace maskkv::kernels
