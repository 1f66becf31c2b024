// SPDX-License-Identifier: Apache-2.0
#include "core/engine/prefix_view.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"

namespace maskkv::engine {

PrefixView::PrefixView(std::shared_ptr<const KvView> base, std::int64_t positions)
    : base_(std::move(base)) {
  MASKKV_CHECK(base_ != nullptr && base_->memory() == MemoryKind::kHost, "a base in host memory");
  heads_.reserve(static_cast<std::size_t>(shape().layers * shape().kv_heads));
  for (std::int64_t layer = 0; layer < shape().layers; ++layer) {
    const auto of_base = base_->Layer(layer);
    for (std::int64_t head = 0; head < shape().kv_heads; ++head) {
      const auto all = base_->Positions(layer, head);
      const std::int64_t shown = std::lower_bound(all.begin(), all.end(), positions) - all.begin();
      const kernels::CachedHead& cached = of_base[static_cast<std::size_t>(head)];
      heads_.push_back({cached.k, cached.v, shown, cached.k_scales, cached.v_scales});
      pairs_ += shown;
    }
  }
}

std::span<const kernels::CachedHead> PrefixView::Layer(std::int64_t layer) const {
  MASKKV_CHECK(layer >= 0 && layer < shape().layers, "layer of an entry");
  return std::span(heads_).subspan(static_cast<std::size_t>(layer * shape().kv_heads),
                                   static_cast<std::size_t>(shape().kv_heads));
}

std::span<const std::int32_t> PrefixView::Positions(std::int64_t layer, std::int64_t head) const {
  MASKKV_CHECK(head >= 0 && head < shape().kv_heads, "head of an entry");
  const std::int64_t shown = Layer(layer)[static_cast<std::size_t>(head)].pairs;
  return base_->Positions(layer, head).first(static_cast<std::size_t>(shown));
}

}  // namespace maskkv::engine
