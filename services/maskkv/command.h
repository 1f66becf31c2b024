// SPDX-License-Identifier: Apache-2.0
//
// What a subcommand is: it declares its flags on a CLI11 app and runs afterwards. Exit codes are
// documented in docs/cli.md; every error is one line on standard error.
#ifndef MASKKV_SERVICES_MASKKV_COMMAND_H_
#define MASKKV_SERVICES_MASKKV_COMMAND_H_

#include <memory>

#include "absl/status/status.h"

namespace CLI {
class App;
}

namespace maskkv::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitInternal = 1;       // a defect of ours, or the system failed us
inline constexpr int kExitUsage = 2;          // a flag is unknown, missing or has a bad value
inline constexpr int kExitBadInput = 3;       // a file, checkpoint, prompt or parameter is wrong
inline constexpr int kExitNoResources = 4;    // memory or another limit
inline constexpr int kExitInterrupted = 130;  // SIGINT or SIGTERM

// The end of every help text.
inline constexpr const char* kExitCodesHelp =
    "Exit codes: 0 done, 1 internal, 2 usage, 3 bad input, 4 out of resources, 130 interrupted";

// The exit code for a status.
int ExitCode(const absl::Status& status);

class Command {
 public:
  virtual ~Command() = default;
  virtual absl::Status Run() = 0;
};

// Each adds its subcommand to `app`; the result lives as long as the parse and the run.
std::unique_ptr<Command> MakeGenerateCommand(CLI::App& app);
std::unique_ptr<Command> MakeCalibrateCommand(CLI::App& app);
std::unique_ptr<Command> MakeInspectCommand(CLI::App& app);
std::unique_ptr<Command> MakeInspectModelCommand(CLI::App& app);
std::unique_ptr<Command> MakeEvaluateCommand(CLI::App& app);
std::unique_ptr<Command> MakeReuseCommand(CLI::App& app);
std::unique_ptr<Command> MakeBenchCommand(CLI::App& app);
std::unique_ptr<Command> MakeServeCommand(CLI::App& app);
std::unique_ptr<Command> MakeTopCommand(CLI::App& app);

// True once SIGINT or SIGTERM has arrived; commands look at it between steps.
bool Interrupted();
void WaitUntilInterrupted();
// Blocks both signals in the calling thread and all it starts afterwards, and lets a thread of its
// own wait for them; a second signal ends the process at once. There are no handlers: on AVX2
// machines oneDNN's kernels use the stack pointer as a pointer into their scratch memory, and a
// handler's frame would overwrite what lies below it.
void WatchSignals();

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_COMMAND_H_
