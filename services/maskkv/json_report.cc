// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/json_report.h"

#include <cstdio>
#include <numeric>

#include "maskkv/v1/decode.pb.h"
#include "services/common/memory.h"
#include "services/decode/filled_spans.h"

namespace maskkv::cli {
namespace {

Json Milliseconds(const std::vector<double>& seconds) {
  Json list = Json::array();
  for (const double value : seconds) list.push_back(value * 1e3);
  return list;
}

}  // namespace

Json KeptJson(const std::vector<std::vector<std::int64_t>>& pairs, double mass) {
  std::int64_t sum = 0;
  Json per_layer = Json::array();
  for (const std::vector<std::int64_t>& layer : pairs) {
    per_layer.push_back(std::accumulate(layer.begin(), layer.end(), std::int64_t{0}));
    sum += per_layer.back().get<std::int64_t>();
  }
  return {{"pairs", sum}, {"per_layer", std::move(per_layer)}, {"per_head", pairs}, {"mass", mass}};
}

Json KeptJson(const Generation& generation) {
  if (!generation.prefill) return nullptr;
  std::vector<std::vector<std::int64_t>> pairs;
  for (const engine::LayerReport& layer : generation.prefill->result.layers) {
    pairs.push_back(layer.pairs);
  }
  return KeptJson(pairs, generation.prefill->result.kept_mass());
}

Json GenerationJson(const ModelHost& host, std::span<const std::int32_t> prompt,
                    const Generation& generation) {
  Json steps = Json::array();
  for (const engine::StepEvent& event : generation.steps) {
    Json committed = Json::array();
    for (const engine::Prediction& prediction : event.committed) {
      committed.push_back({prediction.position, prediction.token, prediction.confidence});
    }
    steps.push_back({{"step", event.step}, {"committed", std::move(committed)}});
    if (event.grown > 0) steps.back()["grown"] = event.grown;
    if (event.kept_mass) steps.back()["kept_mass"] = *event.kept_mass;
  }
  Json refreshes = Json::array();
  for (const Generation::Refresh& refresh : generation.refreshes) {
    refreshes.push_back({{"step", generation.steps[refresh.before].step},
                         {"ms", refresh.seconds * 1e3},
                         {"mass", refresh.kept_mass}});
  }
  double prefill_seconds = 0;
  std::int64_t entry_bytes = 0;
  for (const auto* prompt_of : {&generation.prefill, &generation.unconditional}) {
    if (!prompt_of->has_value()) continue;
    prefill_seconds += (*prompt_of)->seconds;
    entry_bytes += (*prompt_of)->entry->bytes();
  }
  return {{"prompt_tokens", prompt.size()},
          {"tokens", generation.tokens},
          {"text", host.Text(generation.tokens)},
          {"canvas_length", generation.canvas_length},
          {"finish_reason", engine::Name(generation.finish_reason)},
          {"steps", std::move(steps)},
          {"kept", KeptJson(generation)},
          {"refreshes", std::move(refreshes)},
          {"rope_scale", generation.rope_scale},
          {"timings_ms",
           {{"load", host.load_seconds() * 1e3},
            {"prefill", prefill_seconds * 1e3},
            {"steps", Milliseconds(generation.step_seconds)}}},
          {"memory_bytes",
           {{"peak", services::PeakMemoryBytes()},
            {"entry", entry_bytes},
            {"response_cache", generation.steps.back().response_cache_bytes}}}};
}

void AddInfillJson(const ModelHost& host, const Infill& infill, Json& generation) {
  v1::Finished finished;
  for (const Json& token : generation["tokens"]) finished.add_tokens(token.get<std::int32_t>());
  decode::FillSpans(infill.canvas, host.runtime(), finished);
  Json spans = Json::array();
  for (const v1::Span& span : finished.spans()) {
    const std::vector<std::int32_t> tokens(span.tokens().begin(), span.tokens().end());
    spans.push_back({{"position", span.position()}, {"tokens", tokens}, {"text", span.text()}});
  }
  generation["spans"] = std::move(spans);
  generation["prompt_tokens"] =
      generation["prompt_tokens"].get<std::size_t>() + infill.suffix.size();
}

void PrintJson(const Json& json) {
  std::printf("%s\n", json.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
}

}  // namespace maskkv::cli
