// SPDX-License-Identifier: Apache-2.0
//
// Metrics of one process. A service declares all of its metrics in one place (its metrics.h) as
// constant MetricSpecs and makes a struct of handles from them; the specs also make
// docs/metrics.md. Prometheus underneath (prometheus-cpp). Handles stay valid while the registry
// lives. Thread safe.
//
// No label holds a request, tenant, address, prompt hash or error text.
#ifndef MASKKV_CORE_TELEMETRY_METRICS_H_
#define MASKKV_CORE_TELEMETRY_METRICS_H_

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace prometheus {
class Registry;
class Counter;
class Gauge;
class Histogram;
}  // namespace prometheus

namespace maskkv::telemetry {

enum class MetricType { kCounter, kGauge, kHistogram };

// One metric family. Names: prefix maskkv_ (or a standard name), base units, counters end in
// _total.
struct MetricSpec {
  std::string_view name;
  MetricType type;
  std::string_view unit;  // "seconds", "bytes", "1" ...
  std::string_view help;  // one sentence
  // Label names, separated by commas; "" for none.
  std::string_view labels = "";
  // Upper bounds of a histogram's buckets, ascending.
  std::span<const double> buckets = {};
};

using Labels = std::map<std::string, std::string>;

class Counter {
 public:
  Counter() = default;
  void Add(double by = 1) const;

 private:
  friend class Registry;
  explicit Counter(prometheus::Counter* counter) : counter_(counter) {}
  prometheus::Counter* counter_ = nullptr;
};

class Gauge {
 public:
  Gauge() = default;
  void Set(double value) const;
  void Add(double by) const;

 private:
  friend class Registry;
  explicit Gauge(prometheus::Gauge* gauge) : gauge_(gauge) {}
  prometheus::Gauge* gauge_ = nullptr;
};

class Histogram {
 public:
  Histogram() = default;
  void Observe(double value) const;

 private:
  friend class Registry;
  explicit Histogram(prometheus::Histogram* histogram) : histogram_(histogram) {}
  prometheus::Histogram* histogram_ = nullptr;
};

// Default-constructed handles do nothing: tests need no registry.
class Registry {
 public:
  Registry();
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  // The series of `spec` with these labels; the same one when asked again.
  // REQUIRES: type as declared; labels are exactly spec.labels; the spec of a name never differs.
  Counter AddCounter(const MetricSpec& spec, const Labels& labels = {});
  Gauge AddGauge(const MetricSpec& spec, const Labels& labels = {});
  Histogram AddHistogram(const MetricSpec& spec, const Labels& labels = {});

  // maskkv_build_info, maskkv_ready, maskkv_draining and process_* are always there.
  Gauge ready() const;
  Gauge draining() const;

  // maskkv_config_info{model_name,model_fingerprint,layout_version,kv_dtype}: what was loaded. Call
  // once; "" where there is none.
  void SetConfigInfo(const std::string& model_name, const std::string& model_fingerprint,
                     const std::string& layout_version, const std::string& kv_dtype);

  // Text exposition of everything, as a scrape would get it.
  std::string Scrape() const;

  // What an exposer collects. Its series are those of Scrape().
  std::shared_ptr<prometheus::Registry> prometheus_registry() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Serves /metrics over HTTP until destroyed, in threads of its own: a scrape is answered however
// busy the gRPC server is. What the registry holds is shared, it may go first.
class Exposer {
 public:
  // address: "HOST:PORT", HOST a numeric address or "localhost", port 0 allowed.
  // Errors: INVALID_ARGUMENT (BAD_ADDRESS), UNAVAILABLE (ADDRESS_IN_USE).
  static absl::StatusOr<std::unique_ptr<Exposer>> Start(const std::string& address,
                                                        const Registry& registry);
  virtual ~Exposer() = default;
  virtual std::string address() const = 0;  // "HOST:PORT" with the real port
};

// Of the metrics that every Registry has by itself, for docs/metrics.md.
std::span<const MetricSpec> CommonMetricSpecs();

// OK, or INVALID_ARGUMENT naming the rule that the spec breaks: prefix, name and label characters,
// _total on counters and on nothing else, unit at the end of the name, a help sentence, buckets on
// histograms only and ascending.
absl::Status CheckMetricSpec(const MetricSpec& spec);

}  // namespace maskkv::telemetry

#endif  // MASKKV_CORE_TELEMETRY_METRICS_H_
