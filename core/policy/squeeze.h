// SPDX-License-Identifier: Apache-2.0
//
// Layer budgets by clusters of layers, as SqueezeAttention (arXiv 2404.04793) gives them: layers
// whose attention changes the hidden state least (highest cosine similarity c_l = 1 - I(l)) give up
// most of their budget to the others.
//
//   clusters  at most 3, by ClusterValues of c; g: size of the one of highest similarity
//   x_l       0.4 * B in that cluster, else B + (((0.6 * B) * g) / (L - g))
//
// (IEEE double operations, in the order of the brackets), made whole by NearestWithTotal (claims.h)
// in [1, n_p] with the sum L * min(B, n_p). One distinct similarity: uniform. B >= n_p: every layer
// gets n_p; n_p = 0: zeros. Pure functions, thread safe.
#ifndef MASKKV_CORE_POLICY_SQUEEZE_H_
#define MASKKV_CORE_POLICY_SQUEEZE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace maskkv::policy {

// Optimal k-means of numbers: the partition of the sorted values into min(3, distinct values)
// clusters, equal values together, with the least sum over all values of the squared distance to
// their cluster's mean; ties to the partition whose borders come first. Sums run in extended
// precision on differences to the smallest value; partitions within 1e-16 of all squares are tied.
// values (n) finite, n <= 2^20; time grows with the square of the distinct values.
// Returns: (n) cluster of each value, 0 the one of the smallest values.
std::vector<int> ClusterValues(std::span<const double> values);

// importance (layers) f64, I(l) of equation (8), 1 to 2^20, each in [0, 2]; budget B >= 1;
// prompt_tokens n_p in [0, 2^31 - 1].
// Returns: (layers) pairs per head. Errors: INVALID_ARGUMENT naming argument, found and expected.
absl::StatusOr<std::vector<std::int64_t>> SqueezeLayerBudgets(std::span<const double> importance,
                                                              std::int64_t budget,
                                                              std::int64_t prompt_tokens);

}  // namespace maskkv::policy

#endif  // MASKKV_CORE_POLICY_SQUEEZE_H_
