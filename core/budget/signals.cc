// SPDX-License-Identifier: Apache-2.0
#include "core/budget/signals.h"

#include <algorithm>
#include <cmath>
#include <variant>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/error.h"

namespace maskkv::budget {
namespace {

constexpr std::size_t kPrefill = 0;
constexpr std::size_t kDecode = 1;
constexpr std::size_t kCache = 2;
static_assert(std::is_same_v<std::variant_alternative_t<kPrefill, decltype(Observation::seen)>,
                             PrefillObservation>);
static_assert(std::is_same_v<std::variant_alternative_t<kDecode, decltype(Observation::seen)>,
                             DecodeObservation>);
static_assert(std::is_same_v<std::variant_alternative_t<kCache, decltype(Observation::seen)>,
                             CacheObservation>);

// More leased than there is happens while the last readers of evicted entries still map them.
constexpr double kMostUsage = 2;

double Seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

void Blend(double& average, double value, double weight) { average += weight * (value - average); }

// 0 at 0, 1/2 at `half`, below 1 always.
double Saturate(double value, double half) { return value / (value + half); }

}  // namespace

absl::Status Signals::Observe(const Observation& observation, TimePoint now) {
  const Key key{observation.seen.index(), observation.reporter};
  auto found = reporters_.find(key);
  const bool first = found == reporters_.end();
  if (first) {
    Expire(now);
    if (reporters_.size() >= tuning_.max_reporters) {
      return MakeError(absl::StatusCode::kResourceExhausted, "TOO_MANY_REPORTERS",
                       absl::StrFormat("report.reporter: expected at most %d at a time, found more",
                                       tuning_.max_reporters));
    }
    found = reporters_.emplace(key, Reporter{}).first;
  }
  Reporter& reporter = found->second;
  const double period = observation.period_seconds;
  const auto fresh = std::chrono::duration_cast<Duration>(
      std::chrono::duration<double>(tuning_.fresh_periods * period));
  reporter.last = now;
  reporter.fresh = std::clamp(fresh, tuning_.fresh_at_least, tuning_.fresh_at_most);
  const double weight = 1 - std::exp(-period / Seconds(tuning_.smoothing));
  const double weight_of_level = first ? 1 : weight;
  const auto queue = [&](const auto& seen) {
    Blend(reporter.queue_seconds, seen.queue_seconds, weight_of_level);
    Blend(reporter.waiting, static_cast<double>(seen.waiting), weight_of_level);
  };
  if (const auto* prefill = std::get_if<PrefillObservation>(&observation.seen)) {
    queue(*prefill);
    ObserveMass(*prefill, period, now);
  } else if (const auto* decode = std::get_if<DecodeObservation>(&observation.seen)) {
    queue(*decode);
  } else {
    const auto& cache = std::get<CacheObservation>(observation.seen);
    const double usage =
        static_cast<double>(cache.leased_bytes) / static_cast<double>(cache.capacity_bytes);
    Blend(reporter.usage, std::min(usage, kMostUsage), weight_of_level);
    const auto rate = [&](std::int64_t count) { return static_cast<double>(count) / period; };
    Blend(reporter.refusals, Saturate(rate(cache.refused), tuning_.refusals_half), weight);
    Blend(reporter.evictions, Saturate(rate(cache.evicted), tuning_.evictions_half), weight);
  }
  return absl::OkStatus();
}

void Signals::ObserveMass(const PrefillObservation& seen, double period_seconds, TimePoint now) {
  const double since_change = std::max(Seconds(now - mass_since_), 0.0);
  const double counted =
      static_cast<double>(seen.prefills) * std::min(since_change / period_seconds, 1.0);
  if (!(counted > 0)) return;
  Blend(mass_, std::min(seen.mass, 1.0), counted / (mass_prefills_ + counted));
  mass_prefills_ =
      std::min(mass_prefills_ + counted, static_cast<double>(tuning_.mass_memory_prefills));
}

void Signals::MassOutdated(TimePoint now) {
  mass_ = mass_prefills_ = 0;
  mass_since_ = now;
}

double Signals::Freshness(const Reporter& reporter, TimePoint now) const {
  const double silent = Seconds(now - reporter.last);
  const double fresh = Seconds(reporter.fresh);
  const double end = fresh * tuning_.expiry_factor;
  return std::clamp((end - silent) / (end - fresh), 0.0, 1.0);
}

void Signals::Expire(TimePoint now) {
  std::erase_if(reporters_, [&](const auto& entry) { return Freshness(entry.second, now) <= 0; });
  const bool prefill_heard = std::ranges::any_of(
      reporters_, [](const auto& entry) { return entry.first.first == kPrefill; });
  if (!prefill_heard) mass_ = mass_prefills_ = 0;
}

LoopInput Signals::At(TimePoint now) const {
  LoopInput input;
  for (const auto& [key, reporter] : reporters_) {
    const double freshness = Freshness(reporter, now);
    if (freshness <= 0) continue;
    if (key.first == kCache) {
      const double pressure =
          reporter.usage + reporter.refusals + tuning_.eviction_weight * reporter.evictions;
      input.memory = std::max(input.memory, freshness * pressure);
      input.memory_fresh = input.memory_fresh || now - reporter.last <= reporter.fresh;
      continue;
    }
    const double pressure =
        reporter.queue_seconds / tuning_.queue_seconds +
        tuning_.waiting_weight * Saturate(reporter.waiting, tuning_.waiting_half);
    input.queue = std::max(input.queue, freshness * pressure);
    input.prefill_heard = input.prefill_heard || key.first == kPrefill;
  }
  if (input.prefill_heard && mass_prefills_ >= static_cast<double>(tuning_.mass_prefills)) {
    input.mass = mass_;
  }
  return input;
}

void Signals::CheckInvariants() const {
  MASKKV_CHECK(reporters_.size() <= tuning_.max_reporters, "reporters are bounded");
  const auto sane = [](double value) { return std::isfinite(value) && value >= 0; };
  for (const auto& [key, reporter] : reporters_) {
    MASKKV_CHECK(sane(reporter.usage) && sane(reporter.refusals) && sane(reporter.evictions) &&
                     sane(reporter.queue_seconds) && sane(reporter.waiting),
                 "averages are finite and not negative");
  }
  MASKKV_CHECK(sane(mass_) && mass_ <= 1 && sane(mass_prefills_), "kept mass is a share");
}

}  // namespace maskkv::budget
