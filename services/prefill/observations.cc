// SPDX-License-Identifier: Apache-2.0
#include "services/prefill/observations.h"

#include <algorithm>
#include <numeric>

#include "core/base/check.h"
#include "maskkv/v1/budget.pb.h"

namespace maskkv::prefill {

Observations::Observations(std::int64_t layers, std::int64_t kv_heads, const Clock& clock)
    : layers_(static_cast<std::size_t>(layers)),
      kv_heads_(static_cast<std::size_t>(kv_heads)),
      clock_(clock) {
  Clear();
}

void Observations::Clear() {
  since_ = clock_.Now();
  prefills_ = 0;
  mass_ = 0;
  layer_mass_.assign(layers_, 0);
  preference_.assign(layers_ * kv_heads_, 0);
  longest_wait_ = Duration::zero();
}

void Observations::AddForward(const engine::PrefillResult& result) {
  MASKKV_CHECK(result.layers.size() == layers_, "the forward is of this model");
  if (result.prompt_tokens == 0) return;  // nothing was decided
  const std::lock_guard lock(mu_);
  ++prefills_;
  mass_ += std::clamp(result.kept_mass(), 0.0, 1.0);
  for (std::size_t layer = 0; layer < layers_; ++layer) {
    const engine::LayerReport& report = result.layers[layer];
    const double kept = std::accumulate(report.kept_mass.begin(), report.kept_mass.end(), 0.0);
    const double all = std::accumulate(report.prompt_mass.begin(), report.prompt_mass.end(), 0.0);
    layer_mass_[layer] += all > 0 ? std::clamp(kept / all, 0.0, 1.0) : 1;
    for (std::size_t head = 0; head < kv_heads_; ++head) {
      preference_[layer * kv_heads_ + head] += std::clamp(report.preference[head], 0.0, 1.0);
    }
  }
}

void Observations::AddWait(Duration waited) {
  const std::lock_guard lock(mu_);
  longest_wait_ = std::max(longest_wait_, waited);
}

void Observations::Take(const std::string& model_fingerprint, std::int64_t waiting,
                        Duration longest_wait, v1::ReportRequest& report) {
  using std::chrono::duration;
  const std::lock_guard lock(mu_);
  const auto period =
      std::chrono::duration_cast<std::chrono::nanoseconds>(clock_.Now() - since_).count();
  report.mutable_period()->set_seconds(period / 1'000'000'000);
  report.mutable_period()->set_nanos(static_cast<std::int32_t>(period % 1'000'000'000));
  v1::PrefillObservation& out = *report.mutable_prefill();
  out.set_model_fingerprint(model_fingerprint);
  out.set_prefills(prefills_);
  if (prefills_ > 0) {
    const auto mean = [&](double sum) { return sum / static_cast<double>(prefills_); };
    out.set_mass(mean(mass_));
    for (const double sum : layer_mass_) out.add_layer_mass(mean(sum));
    for (const double sum : preference_) out.add_preference(mean(sum));
  }
  out.set_queue_seconds(duration<double>(std::max(longest_wait_, longest_wait)).count());
  out.set_waiting(waiting);
  Clear();
}

}  // namespace maskkv::prefill
