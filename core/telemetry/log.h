// SPDX-License-Identifier: Apache-2.0
//
// Structured logs: one JSON object a line on standard error, {"time", "level", "process", "event",
// fields}. Events are snake_case names; fields are identifiers, numbers and durations. Never prompt
// text, token ids or scores. spdlog underneath. Thread safe.
#ifndef MASKKV_CORE_TELEMETRY_LOG_H_
#define MASKKV_CORE_TELEMETRY_LOG_H_

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <utility>
#include <variant>

namespace maskkv::telemetry {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

using LogValue = std::variant<std::string_view, std::int64_t, double, bool>;
using LogFields = std::initializer_list<std::pair<std::string_view, LogValue>>;

// process: "prefill", "cached", ... level: what is written from. Call once in main; before it, and
// in tests, warnings and errors are written.
void ConfigureLog(std::string_view process, LogLevel level);

// "debug", "info", "warning", "error"; false if it is none of them.
bool ParseLogLevel(std::string_view text, LogLevel& level);

void Log(LogLevel level, std::string_view event, LogFields fields = {});

// Returns when every line is written; later lines are written by their callers. For the end of
// main.
void CloseLog();

}  // namespace maskkv::telemetry

#endif  // MASKKV_CORE_TELEMETRY_LOG_H_
