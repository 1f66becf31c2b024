// SPDX-License-Identifier: Apache-2.0
#include "core/telemetry/log.h"

#include <spdlog/async.h>
#include <spdlog/async_logger.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"

namespace maskkv::telemetry {
namespace {

using Json = nlohmann::ordered_json;

// Lines that wait for a standard error that does not take them; older ones go first.
constexpr std::size_t kQueueLines = 8192;

// Where lines go. Before ConfigureLog they are written by the caller; afterwards by a thread of
// spdlog's, so that a full pipe stalls no request.
struct Output {
  std::atomic<LogLevel> level{LogLevel::kWarning};
  std::mutex mu;
  std::string process = "maskkv";                      // guarded by mu
  std::shared_ptr<spdlog::details::thread_pool> pool;  // guarded by mu; outlives the logger
  std::shared_ptr<spdlog::logger> logger;              // guarded by mu
};

// Lives until the process ends; its destructor writes what waits.
Output& TheOutput() {
  static Output output;
  return output;
}

std::shared_ptr<spdlog::logger> Prepare(std::shared_ptr<spdlog::logger> logger) {
  logger->set_pattern("%v");
  logger->set_level(spdlog::level::trace);
  logger->flush_on(spdlog::level::trace);
  return logger;
}

spdlog::sink_ptr StandardError() {
  static const auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  return sink;
}

// UTC, RFC 3339, microseconds.
std::string Now() {
  const auto now =
      std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now());
  const std::int64_t micros = now.time_since_epoch().count();
  const std::time_t seconds = static_cast<std::time_t>(micros / 1'000'000);
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  return absl::StrFormat("%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", utc.tm_year + 1900, utc.tm_mon + 1,
                         utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, micros % 1'000'000);
}

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "error";
}

std::string ToLine(LogLevel level, const std::string& process, std::string_view event,
                   LogFields fields) {
  Json line;
  line["time"] = Now();
  line["level"] = LevelName(level);
  line["process"] = process;
  line["event"] = std::string(event);
  for (const auto& [name, value] : fields) {
    std::visit(
        [&, key = std::string(name)](const auto& held) {
          if constexpr (std::is_same_v<std::decay_t<decltype(held)>, std::string_view>) {
            line[key] = std::string(held);
          } else {
            line[key] = held;
          }
        },
        value);
  }
  return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

void ConfigureLog(std::string_view process, LogLevel level) {
  Output& output = TheOutput();
  const std::lock_guard lock(output.mu);
  output.process = std::string(process);
  output.level.store(level, std::memory_order_relaxed);
  if (output.pool != nullptr) return;
  output.pool = std::make_shared<spdlog::details::thread_pool>(kQueueLines, 1);
  output.logger = Prepare(std::make_shared<spdlog::async_logger>(
      "log", StandardError(), output.pool, spdlog::async_overflow_policy::overrun_oldest));
}

void CloseLog() {
  std::shared_ptr<spdlog::details::thread_pool> pool;
  Output& output = TheOutput();
  const std::lock_guard lock(output.mu);
  output.logger = nullptr;
  pool = std::move(output.pool);  // its destructor writes what waits
}

bool ParseLogLevel(std::string_view text, LogLevel& level) {
  for (const LogLevel candidate :
       {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError}) {
    if (text != LevelName(candidate)) continue;
    level = candidate;
    return true;
  }
  return false;
}

void Log(LogLevel level, std::string_view event, LogFields fields) {
  Output& output = TheOutput();
  if (level < output.level.load(std::memory_order_relaxed)) return;
  std::shared_ptr<spdlog::logger> logger;
  std::string process;
  {
    const std::lock_guard lock(output.mu);
    if (output.logger == nullptr) {
      output.logger = Prepare(std::make_shared<spdlog::logger>("log", StandardError()));
    }
    logger = output.logger;
    process = output.process;
  }
  logger->log(spdlog::level::info, ToLine(level, process, event, fields));
}

}  // namespace maskkv::telemetry
