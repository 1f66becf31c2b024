// SPDX-License-Identifier: Apache-2.0
//
// A small model of what the controller controls: requests arrive at random, a prefill keeps B pairs
// a head a layer in a finite arena and loses less mass the more it keeps, a decode of limited batch
// leases the entry for a while, entries that nobody leases stay until they are evicted. It reports
// as the services do. Seeded, in steps of 0.1 s of a ManualClock.
#ifndef MASKKV_TESTS_UNIT_CORE_BUDGET_PLANT_H_
#define MASKKV_TESTS_UNIT_CORE_BUDGET_PLANT_H_

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "core/base/clock.h"
#include "core/budget/controller.h"
#include "gtest/gtest.h"

namespace maskkv::budget {

struct PlantOptions {
  std::vector<double> importance{0.4, 0.05, 0.05, 0.05, 0.3};
  std::vector<double> pairs_wanted{8, 8, 8, 8, 8};  // of each layer, for 63 % of its mass
  std::int64_t kv_heads = 2;
  double arrivals_per_second = 2;
  double capacity = 8000;      // in units of one pair of every head and layer
  double decode_seconds = 10;  // mean
  std::size_t batch = 64;      // decodes at once
  std::size_t queue = 256;     // waiting ones; further arrivals are lost
};

class Plant {
 public:
  Plant(const PlantOptions& of, std::uint64_t seed, ManualClock& clock)
      : options(of), random_(seed), clock_(clock) {}

  PlantOptions options;
  bool prefill_silent = false, decode_silent = false, cache_silent = false;

  PlannedModel Model() const {
    return {.fingerprint = "",
            .importance = options.importance,
            .layers = static_cast<std::int64_t>(options.importance.size()),
            .kv_heads = options.kv_heads};
  }

  // Kept share of the mass of each layer under a plan, without noise.
  std::vector<double> LayerMass(const Plan& plan) const {
    const std::vector<double> start =
        StartWeights(options.importance, static_cast<std::int64_t>(options.importance.size()));
    const std::vector<double>& weights = plan.layer_weights.empty() ? start : plan.layer_weights;
    const auto pairs = static_cast<double>(plan.coverage > 0 ? plan.max_budget : plan.budget);
    std::vector<double> mass;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const double kept = pairs * (plan.beta + (1 - plan.beta) * weights[i]);
      mass.push_back(1 - std::exp(-std::sqrt(kept / options.pairs_wanted[i])));
    }
    return mass;
  }

  double Mass(const Plan& plan) const {
    double sum = 0;
    for (const double mass : LayerMass(plan)) sum += mass;
    return sum / static_cast<double>(options.importance.size());
  }

  // Advances by a second; reports every fifth.
  void RunASecond(Controller& controller) {
    const Plan& plan = controller.Current();
    for (int i = 0; i < 10; ++i) {
      clock_.Advance(std::chrono::milliseconds(100));
      now_ += 0.1;
      Arrive();
      Finish();
      Admit(plan);
    }
    if (++seconds_ % 5 == 0) Report(controller);
  }

  double usage() const { return leased_ / options.capacity; }
  std::int64_t lost() const { return lost_; }

 private:
  struct Running {
    double end = 0, size = 0;
  };

  void Arrive() {
    std::poisson_distribution<int> arrivals(options.arrivals_per_second * 0.1);
    for (int n = arrivals(random_); n > 0; --n) {
      if (waiting_.size() < options.queue) {
        waiting_.push_back(now_);
      } else {
        ++lost_;
      }
    }
  }

  void Finish() {
    std::erase_if(running_, [this](const Running& running) {
      if (running.end > now_) return false;
      leased_ -= running.size;
      idle_ += running.size;
      return true;
    });
  }

  void Admit(const Plan& plan) {
    const auto size = static_cast<double>(plan.coverage > 0 ? plan.max_budget : plan.budget);
    while (!waiting_.empty() && running_.size() < options.batch) {
      if (leased_ + size > options.capacity) {
        ++refused_;
        return;
      }
      if (leased_ + idle_ + size > options.capacity) {
        idle_ = std::max(options.capacity - leased_ - size, 0.0);
        ++evicted_;
      }
      std::uniform_real_distribution<double> seconds(0.5 * options.decode_seconds,
                                                     1.5 * options.decode_seconds);
      running_.push_back({now_ + seconds(random_), size});
      leased_ += size;
      longest_wait_ = std::max(longest_wait_, now_ - waiting_.front());
      waiting_.pop_front();
      ++prefills_;
      Sample(plan);
    }
  }

  // What one prompt kept: the curve with a prompt's own deviation.
  void Sample(const Plan& plan) {
    std::normal_distribution<double> deviation(0, 0.02);
    const std::vector<double> mass = LayerMass(plan);
    layer_mass_.resize(mass.size());
    for (std::size_t i = 0; i < mass.size(); ++i) {
      layer_mass_[i] += std::clamp(mass[i] + deviation(random_), 0.0, 1.0);
    }
  }

  void Report(Controller& controller) {
    if (!prefill_silent) {
      PrefillObservation seen;
      seen.prefills = prefills_;
      for (std::size_t i = 0; prefills_ > 0 && i < layer_mass_.size(); ++i) {
        seen.layer_mass.push_back(layer_mass_[i] / static_cast<double>(prefills_));
        seen.mass += seen.layer_mass.back() / static_cast<double>(layer_mass_.size());
        for (std::int64_t head = 0; head < options.kv_heads; ++head) {
          seen.preference.push_back(head == 0 ? 0.8 : 0.3);
        }
      }
      Send(controller, "prefill", seen);
    }
    if (!decode_silent) {
      const double oldest = waiting_.empty() ? 0 : now_ - waiting_.front();
      Send(controller, "decode",
           DecodeObservation{std::max(longest_wait_, oldest),
                             static_cast<std::int64_t>(waiting_.size()),
                             static_cast<std::int64_t>(running_.size())});
    }
    if (!cache_silent) {
      constexpr double kUnit = 1 << 20;  // bytes
      CacheObservation seen;
      seen.capacity_bytes = static_cast<std::uint64_t>(options.capacity * kUnit);
      seen.allocated_bytes = static_cast<std::uint64_t>(std::max(leased_ + idle_, 0.0) * kUnit);
      seen.leased_bytes = static_cast<std::uint64_t>(std::max(leased_, 0.0) * kUnit);
      seen.refused = refused_;
      seen.evicted = evicted_;
      Send(controller, "cache", seen);
    }
    prefills_ = refused_ = evicted_ = 0;
    longest_wait_ = 0;
    std::ranges::fill(layer_mass_, 0.0);
  }

  template <typename Seen>
  static void Send(Controller& controller, const std::string& reporter, const Seen& seen) {
    EXPECT_TRUE(controller.Observe({.reporter = reporter, .period_seconds = 5, .seen = seen}).ok());
  }

  std::mt19937_64 random_;
  ManualClock& clock_;
  double now_ = 0;
  int seconds_ = 0;
  std::deque<double> waiting_;  // arrival times
  std::vector<Running> running_;
  double leased_ = 0, idle_ = 0;
  std::int64_t lost_ = 0, prefills_ = 0, refused_ = 0, evicted_ = 0;
  double longest_wait_ = 0;
  std::vector<double> layer_mass_;  // sums of the period
};

}  // namespace maskkv::budget

#endif  // MASKKV_TESTS_UNIT_CORE_BUDGET_PLANT_H_
