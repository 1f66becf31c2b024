// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/command.h"

#include <signal.h>  // sigaction is POSIX: <csignal> need not declare it

#include <csignal>

namespace maskkv::cli {
namespace {

volatile std::sig_atomic_t interrupted = 0;

}  // namespace

int ExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kDataLoss:
      return kExitBadInput;
    case absl::StatusCode::kResourceExhausted:
      return kExitNoResources;
    case absl::StatusCode::kCancelled:
      return kExitInterrupted;
    default:
      return kExitInternal;
  }
}

bool Interrupted() { return interrupted != 0; }

void WatchSignals() {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = 1; };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int signal : {SIGINT, SIGTERM}) sigaction(signal, &action, nullptr);
}

}  // namespace maskkv::cli
