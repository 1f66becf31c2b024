// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/top_view.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "absl/strings/str_format.h"
#include "services/maskkv/progress.h"

namespace maskkv::cli {
namespace {

constexpr int kBarWidth = 30;

std::string Bytes(double bytes) {
  static constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return absl::StrFormat(unit == 0 ? "%.0f %s" : "%.1f %s", bytes, kUnits[unit]);
}

class View {
 public:
  View(const MetricsPage& before, const MetricsPage& now, double seconds)
      : before_(before), now_(now), seconds_(std::max(seconds, 1e-9)) {}

  std::vector<std::string> Lines() {
    Requests();
    Prefill();
    Steps();
    Cache();
    Budget();
    return std::move(lines_);
  }

 private:
  // What a counter grew by.
  double Growth(std::string_view name, std::string_view label = "",
                std::string_view value = "") const {
    const double now = now_.Sum(name, label, value);
    const double growth = now - before_.Sum(name, label, value);
    return growth < 0 ? now : growth;
  }
  double Rate(std::string_view name) const { return Growth(name) / seconds_; }
  // Mean of a histogram's observations between the readings, 0 without any.
  double Mean(const std::string& name) const {
    const double count = Growth(name + "_count");
    return count > 0 ? Growth(name + "_sum") / count : 0;
  }

  void Requests() {
    if (!now_.Has("maskkv_requests_running")) return;
    lines_.push_back(absl::StrFormat(
        "requests  %.0f running, %.0f waiting, %.1f/s finished, first token after %.0f ms",
        now_.Sum("maskkv_requests_running", "service", "decode"),
        now_.Sum("maskkv_requests_waiting", "service", "decode"),
        Growth("maskkv_requests_finished_total", "service", "decode") / seconds_,
        1e3 * Mean("maskkv_time_to_first_token_seconds")));
  }

  void Prefill() {
    if (!now_.Has("maskkv_pairs_considered_total")) return;
    const double considered = Growth("maskkv_pairs_considered_total");
    lines_.push_back(absl::StrFormat(
        "prefill   %.0f prompt tokens/s, %.2f %% of pairs kept, %.1f %% of the score mass",
        Growth("maskkv_prompt_tokens_total", "service", "prefill") / seconds_,
        considered > 0 ? 100 * Growth("maskkv_pairs_kept_total") / considered : 0,
        100 * Mean("maskkv_score_mass_kept_ratio")));
  }

  void Steps() {
    if (!now_.Has("maskkv_decode_steps_total")) return;
    lines_.push_back(
        absl::StrFormat("steps     %.1f/s of %.2f ms, batch %.1f, %.0f tokens/s",
                        Rate("maskkv_decode_steps_total"), 1e3 * Mean("maskkv_decode_step_seconds"),
                        Mean("maskkv_decode_batch_size"), Rate("maskkv_generated_tokens_total")));
  }

  void Cache() {
    if (!now_.Has("maskkv_cache_capacity_bytes")) return;
    const double capacity = now_.Sum("maskkv_cache_capacity_bytes");
    const double allocated = now_.Sum("maskkv_cache_allocated_bytes");
    const double share = capacity > 0 ? std::clamp(allocated / capacity, 0.0, 1.0) : 0;
    lines_.push_back(absl::StrFormat("memory    %s %s of %s, %s leased by %.0f",
                                     Bar(static_cast<std::int64_t>(share * 1000), 1000, kBarWidth),
                                     Bytes(allocated), Bytes(capacity),
                                     Bytes(now_.Sum("maskkv_cache_leased_bytes")),
                                     now_.Sum("maskkv_cache_leases")));
    lines_.push_back(
        absl::StrFormat("entries   %.0f sealed, %.0f reserved, %.0f pending, %.1f/s evicted",
                        now_.Sum("maskkv_cache_entries", "state", "sealed"),
                        now_.Sum("maskkv_cache_entries", "state", "reserved"),
                        now_.Sum("maskkv_cache_entries", "state", "pending"),
                        Rate("maskkv_cache_evictions_total")));
  }

  void Budget() {
    if (!now_.Has("maskkv_budget_generation")) return;
    lines_.push_back(absl::StrFormat("budget    generation %.0f, %.0f pairs an entry",
                                     now_.Sum("maskkv_budget_generation"),
                                     now_.Sum("maskkv_budget_total_pairs")));
    // Layers in order of their number, which a label holds as text.
    std::vector<std::pair<int, double>> layers;
    double most = 1;
    for (const Sample& sample : now_.Samples("maskkv_budget_layer_pairs")) {
      const auto layer = sample.labels.find("layer");
      if (layer == sample.labels.end()) continue;
      layers.emplace_back(std::atoi(layer->second.c_str()), sample.value);
      most = std::max(most, sample.value);
    }
    std::sort(layers.begin(), layers.end());
    for (const auto& [layer, pairs] : layers) {
      lines_.push_back(absl::StrFormat(
          "  layer %3d %s %.0f", layer,
          Bar(static_cast<std::int64_t>(1000 * pairs / most), 1000, kBarWidth), pairs));
    }
  }

  const MetricsPage& before_;
  const MetricsPage& now_;
  const double seconds_;
  std::vector<std::string> lines_;
};

}  // namespace

std::vector<std::string> TopLines(const MetricsPage& before, const MetricsPage& now,
                                  double seconds) {
  return View(before, now, seconds).Lines();
}

}  // namespace maskkv::cli
