// SPDX-License-Identifier: Apache-2.0
#include "services/common/library_logs.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "core/telemetry/log.h"
#include "services/common/printable.h"

namespace maskkv::services {
namespace {

void Write(telemetry::LogLevel level, std::string_view event, std::string_view path, int line,
           std::string_view text) {
  const std::string message = Printable(text, 512);
  telemetry::Log(level, event,
                 {{"message", std::string_view(message)},
                  {"file", path.substr(path.rfind('/') + 1)},
                  {"line", std::int64_t{line}}});
}

void WriteGrpc(gpr_log_func_args* args) {
  const bool error = args->severity == GPR_LOG_SEVERITY_ERROR;
  Write(error ? telemetry::LogLevel::kWarning : telemetry::LogLevel::kDebug, "grpc_library",
        args->file, args->line, args->message);
}

void WriteProtobuf(google::protobuf::LogLevel level, const char* file, int line,
                   const std::string& message) {
  const bool fatal = level == google::protobuf::LOGLEVEL_FATAL;
  Write(fatal ? telemetry::LogLevel::kError : telemetry::LogLevel::kDebug, "protobuf_library", file,
        line, message);
}

}  // namespace

void RouteLibraryLogs() {
  static std::once_flag once;
  std::call_once(once, [] {
    gpr_set_log_function(WriteGrpc);
    google::protobuf::SetLogHandler(WriteProtobuf);
  });
}

}  // namespace maskkv::services
