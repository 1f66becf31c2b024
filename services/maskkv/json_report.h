// SPDX-License-Identifier: Apache-2.0
//
// Results as JSON text, fields in a fixed order. Schemas: docs/*.schema.json. Pure, except that
// memory figures are read from /proc/self.
#ifndef MASKKV_SERVICES_MASKKV_JSON_REPORT_H_
#define MASKKV_SERVICES_MASKKV_JSON_REPORT_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "services/maskkv/generation.h"

namespace maskkv::cli {

using Json = nlohmann::ordered_json;

// {pairs, per_layer, per_head, mass}; null without a cache.
Json KeptJson(const Generation& generation);
Json KeptJson(const engine::PrefillResult& result);

// The object of `maskkv generate --json`.
std::string GenerationJson(const ModelHost& host, std::span<const std::int32_t> prompt,
                           const Generation& generation);

// Peak resident memory of this process in bytes since the start or the last reset; 0 if unknown.
std::int64_t PeakMemoryBytes();
// Resident memory now; 0 if unknown.
std::int64_t ResidentMemoryBytes();
// Makes the peak start again from the current value. False where the kernel does not allow it.
bool ResetPeakMemory();

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_JSON_REPORT_H_
