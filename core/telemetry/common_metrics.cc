// SPDX-License-Identifier: Apache-2.0
#include "core/telemetry/common_metrics.h"

#include <span>
#include <vector>

namespace maskkv::telemetry {

const MetricSpec kBuildInfo{"maskkv_build_info", MetricType::kGauge, "1",
                            "Always 1; the labels say which build runs.", "version,compiler"};
const MetricSpec kConfigInfo{"maskkv_config_info", MetricType::kGauge, "1",
                             "Always 1; the labels say which model and memory layout are served.",
                             "model_name,model_fingerprint,layout_version,kv_dtype"};
const MetricSpec kReady{"maskkv_ready", MetricType::kGauge, "1",
                        "1 while the process takes requests, else 0."};
const MetricSpec kDraining{"maskkv_draining", MetricType::kGauge, "1",
                           "1 while the process finishes its last requests, else 0."};

Labels BuildLabels() { return {{"version", MASKKV_VERSION}, {"compiler", __VERSION__}}; }

std::span<const MetricSpec> CommonMetricSpecs() {
  static const std::vector<MetricSpec> specs = [] {
    std::vector<MetricSpec> all{kBuildInfo, kConfigInfo, kReady, kDraining};
    for (const MetricSpec& spec : ProcessMetricSpecs()) all.push_back(spec);
    return all;
  }();
  return specs;
}

}  // namespace maskkv::telemetry
