// SPDX-License-Identifier: Apache-2.0
#include "core/policy/squeeze.h"

#include <algorithm>
#include <cstddef>

#include "core/base/status_macros.h"
#include "core/policy/claims.h"
#include "core/policy/importance.h"
#include "core/policy/layer_budget.h"

namespace maskkv::policy {
namespace {

constexpr double kGivenUp = 0.6;  // of the budget of the cluster of highest similarity
constexpr double kLeft = 0.4;

// Partitions whose summed squares differ by less than this share of all squares are tied: far over
// the rounding of extended precision, far under what two different sets of doubles differ by.
constexpr long double kTie = 1e-16L;

// Sums over distinct sorted values, as differences to the smallest, each as often as it occurs.
class Spread {
 public:
  Spread(std::span<const double> distinct, std::span<const std::int64_t> counts) {
    for (std::size_t i = 0; i < distinct.size(); ++i) {
      const long double x = static_cast<long double>(distinct[i]) - distinct[0];
      const auto n = static_cast<long double>(counts[i]);
      count_.push_back(count_.back() + n);
      sum_.push_back(sum_.back() + n * x);
      squares_.push_back(squares_.back() + n * x * x);
    }
  }

  // Summed squared distance of the distinct values [begin, end) to their mean. REQUIRES: begin <
  // end.
  long double Of(std::size_t begin, std::size_t end) const {
    const long double n = count_[end] - count_[begin];
    const long double sum = sum_[end] - sum_[begin];
    const long double squares = squares_[end] - squares_[begin];
    return std::max(0.0L, n * squares - sum * sum) / n;
  }

  long double squares() const { return squares_.back(); }

 private:
  std::vector<long double> count_{0}, sum_{0}, squares_{0};  // of the values before an index
};

}  // namespace

std::vector<int> ClusterValues(std::span<const double> values) {
  std::vector<double> distinct(values.begin(), values.end());
  std::ranges::sort(distinct);
  std::vector<std::int64_t> counts;
  {
    const std::vector<double> sorted = distinct;
    distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
    for (const double value : distinct) {
      counts.push_back(std::count(sorted.begin(), sorted.end(), value));
    }
  }
  const std::size_t n = distinct.size();
  std::size_t first = std::min<std::size_t>(1, n);  // borders: clusters 1 and 2 begin here
  std::size_t second = std::min<std::size_t>(2, n);
  if (n > 3) {
    const Spread spread(distinct, counts);
    long double least = spread.Of(0, 1) + spread.Of(1, 2) + spread.Of(2, n);
    for (std::size_t i = 1; i + 1 < n; ++i) {
      for (std::size_t j = i + 1; j < n; ++j) {
        const long double all = spread.Of(0, i) + spread.Of(i, j) + spread.Of(j, n);
        if (all < least - kTie * spread.squares()) {
          least = all;
          first = i;
          second = j;
        }
      }
    }
  }
  std::vector<int> clusters;
  clusters.reserve(values.size());
  for (const double value : values) {
    const auto rank =
        static_cast<std::size_t>(std::ranges::lower_bound(distinct, value) - distinct.begin());
    clusters.push_back((rank >= first ? 1 : 0) + (rank >= second ? 1 : 0));
  }
  return clusters;
}

absl::StatusOr<std::vector<std::int64_t>> SqueezeLayerBudgets(std::span<const double> importance,
                                                              std::int64_t budget,
                                                              std::int64_t prompt_tokens) {
  MASKKV_RETURN_IF_ERROR(CheckImportance(importance));
  const auto layers = static_cast<std::int64_t>(importance.size());
  MASKKV_ASSIGN_OR_RETURN(std::vector<std::int64_t> uniform,
                          UniformLayerBudgets(layers, budget, prompt_tokens));
  if (budget >= prompt_tokens) return uniform;
  std::vector<double> similarity;
  similarity.reserve(importance.size());
  for (const double i : importance) similarity.push_back(1 - i);
  const std::vector<int> clusters = ClusterValues(similarity);
  const int highest = std::ranges::max(clusters);
  const std::int64_t group = std::ranges::count(clusters, highest);
  if (group == layers) return uniform;
  const auto mean = static_cast<double>(budget);
  const double others = mean + (((kGivenUp * mean) * static_cast<double>(group)) /
                                static_cast<double>(layers - group));
  std::vector<double> claims;
  claims.reserve(clusters.size());
  for (const int cluster : clusters) {
    claims.push_back(cluster == highest ? kLeft * mean : others);
  }
  return NearestWithTotal(claims, 1, prompt_tokens, layers * budget);
}

}  // namespace maskkv::policy
