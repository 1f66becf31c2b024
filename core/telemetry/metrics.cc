// SPDX-License-Identifier: Apache-2.0
#include "core/telemetry/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <cmath>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/telemetry/common_metrics.h"

namespace maskkv::telemetry {
namespace {

// prometheus-cpp has no collector of process_*: its values are read at every scrape.
class CollectingRegistry final : public prometheus::Registry {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override {
    std::vector<prometheus::MetricFamily> families = prometheus::Registry::Collect();
    for (const ProcessMetric& metric : ReadProcessMetrics()) {
      prometheus::ClientMetric value;
      const bool counter = metric.spec.type == MetricType::kCounter;
      (counter ? value.counter.value : value.gauge.value) = metric.value;
      families.push_back({std::string(metric.spec.name),
                          std::string(metric.spec.help),
                          counter ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge,
                          {value}});
    }
    return families;
  }
};

std::set<std::string> SplitLabels(std::string_view labels) {
  std::set<std::string> names;
  while (!labels.empty()) {
    const std::size_t comma = std::min(labels.find(','), labels.size());
    names.emplace(labels.substr(0, comma));
    labels.remove_prefix(std::min(comma + 1, labels.size()));
  }
  return names;
}

bool SameSpec(const MetricSpec& a, const MetricSpec& b) {
  return a.name == b.name && a.type == b.type && a.unit == b.unit && a.help == b.help &&
         a.labels == b.labels &&
         std::equal(a.buckets.begin(), a.buckets.end(), b.buckets.begin(), b.buckets.end());
}

// A spec that outlives what the caller's views point to.
struct OwnedSpec {
  explicit OwnedSpec(const MetricSpec& from)
      : name(from.name),
        unit(from.unit),
        help(from.help),
        labels(from.labels),
        buckets(from.buckets.begin(), from.buckets.end()),
        type(from.type),
        label_names(SplitLabels(from.labels)) {}
  MetricSpec view() const { return {name, type, unit, help, labels, buckets}; }

  std::string name, unit, help, labels;
  std::vector<double> buckets;
  MetricType type;
  std::set<std::string> label_names;
};

}  // namespace

void Counter::Add(double by) const {
  if (counter_ == nullptr) return;
  MASKKV_CHECK(by >= 0 && std::isfinite(by), "a counter only rises");
  counter_->Increment(by);
}

void Gauge::Set(double value) const {
  if (gauge_ != nullptr) gauge_->Set(value);
}

void Gauge::Add(double by) const {
  if (gauge_ != nullptr) gauge_->Increment(by);
}

void Histogram::Observe(double value) const {
  if (histogram_ != nullptr) histogram_->Observe(value);
}

struct Registry::Impl {
  struct Family {
    OwnedSpec spec;
    // The one of the spec's type.
    prometheus::Family<prometheus::Counter>* counters = nullptr;
    prometheus::Family<prometheus::Gauge>* gauges = nullptr;
    prometheus::Family<prometheus::Histogram>* histograms = nullptr;
  };

  // REQUIRES: mu is held.
  Family& Find(const MetricSpec& spec, MetricType type, const Labels& labels) {
    MASKKV_CHECK(spec.type == type, "a metric is used as another type than declared");
    auto found = families.find(spec.name);
    if (found == families.end()) {
      MASKKV_CHECK(CheckMetricSpec(spec).ok(), CheckMetricSpec(spec).ToString().c_str());
      found = families.emplace(std::string(spec.name), Family{OwnedSpec(spec)}).first;
      Declare(found->second);
    }
    Family& family = found->second;
    MASKKV_CHECK(SameSpec(family.spec.view(), spec), "two specs have the same name");
    std::set<std::string> names;
    for (const auto& [name, value] : labels) names.insert(name);
    MASKKV_CHECK(names == family.spec.label_names, "labels are not those of the spec");
    return family;
  }

  void Declare(Family& family) const {
    const auto& [name, help] = std::tie(family.spec.name, family.spec.help);
    switch (family.spec.type) {
      case MetricType::kCounter:
        family.counters = &prometheus::BuildCounter().Name(name).Help(help).Register(*registry);
        return;
      case MetricType::kGauge:
        family.gauges = &prometheus::BuildGauge().Name(name).Help(help).Register(*registry);
        return;
      case MetricType::kHistogram:
        family.histograms = &prometheus::BuildHistogram().Name(name).Help(help).Register(*registry);
        return;
    }
  }

  const std::shared_ptr<CollectingRegistry> registry = std::make_shared<CollectingRegistry>();
  std::mutex mu;
  std::map<std::string, Family, std::less<>> families;  // guarded by mu
  Gauge ready, draining;                                // constant after construction
};

Registry::Registry() : impl_(std::make_unique<Impl>()) {
  AddGauge(kBuildInfo, BuildLabels()).Set(1);
  impl_->ready = AddGauge(kReady);
  impl_->draining = AddGauge(kDraining);
}

Registry::~Registry() = default;

Counter Registry::AddCounter(const MetricSpec& spec, const Labels& labels) {
  const std::lock_guard lock(impl_->mu);
  auto& family = *impl_->Find(spec, MetricType::kCounter, labels).counters;
  return Counter(&family.Add({labels.begin(), labels.end()}));
}

Gauge Registry::AddGauge(const MetricSpec& spec, const Labels& labels) {
  const std::lock_guard lock(impl_->mu);
  auto& family = *impl_->Find(spec, MetricType::kGauge, labels).gauges;
  return Gauge(&family.Add({labels.begin(), labels.end()}));
}

Histogram Registry::AddHistogram(const MetricSpec& spec, const Labels& labels) {
  const std::lock_guard lock(impl_->mu);
  const Impl::Family& family = impl_->Find(spec, MetricType::kHistogram, labels);
  return Histogram(&family.histograms->Add({labels.begin(), labels.end()}, family.spec.buckets));
}

Gauge Registry::ready() const { return impl_->ready; }
Gauge Registry::draining() const { return impl_->draining; }

void Registry::SetConfigInfo(const std::string& model_name, const std::string& model_fingerprint,
                             const std::string& layout_version, const std::string& kv_dtype) {
  AddGauge(kConfigInfo, {{"model_name", model_name},
                         {"model_fingerprint", model_fingerprint},
                         {"layout_version", layout_version},
                         {"kv_dtype", kv_dtype}})
      .Set(1);
}

std::string Registry::Scrape() const {
  return prometheus::TextSerializer().Serialize(impl_->registry->Collect());
}

std::shared_ptr<prometheus::Registry> Registry::prometheus_registry() const {
  return impl_->registry;
}

}  // namespace maskkv::telemetry
