// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/command.h"

#include <signal.h>  // POSIX: <csignal> need not declare sigwait
#include <unistd.h>

#include <atomic>
#include <thread>

namespace maskkv::cli {
namespace {

std::atomic<bool> interrupted = false;

// Ends the process from the second signal on.
void AwaitSignals(const sigset_t& signals) {
  for (int arrived = 0;;) {
    if (::sigwait(&signals, &arrived) != 0) continue;
    if (interrupted.exchange(true)) ::_exit(kExitInterrupted);
    interrupted.notify_all();
  }
}

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

bool Interrupted() { return interrupted; }

void WaitUntilInterrupted() { interrupted.wait(false); }

void WatchSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread(AwaitSignals, signals).detach();
}

}  // namespace maskkv::cli
