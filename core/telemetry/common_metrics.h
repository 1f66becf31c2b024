// SPDX-License-Identifier: Apache-2.0
//
// Metrics that every process has: what runs, whether it is ready, what the operating system says of
// it. metrics.h adds them to each Registry.
#ifndef MASKKV_CORE_TELEMETRY_COMMON_METRICS_H_
#define MASKKV_CORE_TELEMETRY_COMMON_METRICS_H_

#include <vector>

#include "core/telemetry/metrics.h"

namespace maskkv::telemetry {

extern const MetricSpec kBuildInfo;
extern const MetricSpec kConfigInfo;
extern const MetricSpec kReady;
extern const MetricSpec kDraining;

// The labels of maskkv_build_info.
Labels BuildLabels();

// One process_* metric and its value now.
struct ProcessMetric {
  MetricSpec spec;
  double value = 0;
};

// Reads /proc/self. A file that cannot be read leaves its metrics out.
std::vector<ProcessMetric> ReadProcessMetrics();

// Their specs, whatever /proc says.
std::vector<MetricSpec> ProcessMetricSpecs();

}  // namespace maskkv::telemetry

#endif  // MASKKV_CORE_TELEMETRY_COMMON_METRICS_H_
