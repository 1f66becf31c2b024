// SPDX-License-Identifier: Apache-2.0
//
// Results as JSON, fields in a fixed order. Schemas: docs/*.schema.json.
#ifndef MASKKV_SERVICES_MASKKV_JSON_REPORT_H_
#define MASKKV_SERVICES_MASKKV_JSON_REPORT_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "services/maskkv/generation.h"

namespace maskkv::cli {

using Json = nlohmann::ordered_json;

// {pairs, per_layer, per_head, mass}; null without a cache.
Json KeptJson(const Generation& generation);
// pairs: kept ones, layers x KV heads. mass: kept share of the score.
Json KeptJson(const std::vector<std::vector<std::int64_t>>& pairs, double mass);

// The object of `maskkv generate --json`, with the peak memory so far.
Json GenerationJson(const ModelHost& host, std::span<const std::int32_t> prompt,
                    const Generation& generation);

// Adds to it what filled in: the spans, and the suffix among the prompt's tokens.
// REQUIRES: a canvas.
void AddInfillJson(const ModelHost& host, const Infill& infill, Json& generation);

// One line on standard output. Strings that are not UTF-8 (a path may be anything) get U+FFFD.
void PrintJson(const Json& json);

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_JSON_REPORT_H_
