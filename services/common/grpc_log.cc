// SPDX-License-Identifier: Apache-2.0
#include "services/common/grpc_log.h"

#include <grpc/support/log.h>

#include <mutex>
#include <string>
#include <string_view>

#include "core/telemetry/log.h"
#include "services/common/printable.h"

namespace maskkv::services {
namespace {

void Write(gpr_log_func_args* args) {
  const std::string_view path = args->file;
  const std::string message = Printable(args->message, 512);
  const auto level = args->severity == GPR_LOG_SEVERITY_ERROR ? telemetry::LogLevel::kWarning
                                                              : telemetry::LogLevel::kDebug;
  telemetry::Log(level, "grpc_library",
                 {{"message", std::string_view(message)},
                  {"file", path.substr(path.rfind('/') + 1)},
                  {"line", std::int64_t{args->line}}});
}

}  // namespace

void RouteGrpcLog() {
  static std::once_flag once;
  std::call_once(once, [] { gpr_set_log_function(Write); });
}

}  // namespace maskkv::services
