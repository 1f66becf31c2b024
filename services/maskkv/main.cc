// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "services/maskkv/command.h"

namespace maskkv::cli {
namespace {

// An error message is one line of printable characters, whatever a file name or a field held.
void PrintError(std::string message) {
  const auto control = [](char c) { return (c >= 0 && c < ' ') || c == '\x7f'; };
  std::replace_if(message.begin(), message.end(), control, ' ');
  std::fprintf(stderr, "maskkv: %s\n", message.c_str());
}

// What was printed has to have arrived.
int FlushOutput() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return kExitOk;
  PrintError("standard output: expected to be writable, found a failure to write");
  return kExitInternal;
}

// "" if a subcommand is named first, or a flag of maskkv itself.
std::string SubcommandError(const CLI::App& app, const std::string& first) {
  const std::vector<const CLI::App*> commands = app.get_subcommands({});
  const bool known = std::any_of(commands.begin(), commands.end(), [&](const CLI::App* command) {
    return command->get_name() == first;
  });
  if (known || first.starts_with('-')) return "";
  return "subcommand: expected generate, calibrate, inspect, inspect-model, evaluate, reuse, "
         "bench, "
         "serve or top, found " +
         (first.empty() ? "nothing" : first);
}

int Main(int argc, char** argv) {
  CLI::App app{"maskkv: masked diffusion language models over a compressed prompt cache", "maskkv"};
  app.set_version_flag("--version", "maskkv " MASKKV_VERSION);
  app.require_subcommand(1);
  app.footer(kExitCodesHelp);
  std::vector<std::pair<CLI::App*, std::unique_ptr<Command>>> commands;
  for (auto* make : {&MakeGenerateCommand, &MakeCalibrateCommand, &MakeInspectCommand,
                     &MakeInspectModelCommand, &MakeEvaluateCommand, &MakeReuseCommand,
                     &MakeBenchCommand, &MakeServeCommand, &MakeTopCommand}) {
    std::unique_ptr<Command> command = make(app);
    commands.emplace_back(app.get_subcommands({}).back(), std::move(command));
  }

  if (const std::string error = SubcommandError(app, argc > 1 ? argv[1] : ""); !error.empty()) {
    PrintError(error + " (see --help)");
    return kExitUsage;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {  // --help, --version
      app.exit(error);
      return FlushOutput();
    }
    PrintError(std::string(error.what()) + " (see --help)");
    return kExitUsage;
  }
  WatchSignals();
  for (const auto& [subcommand, command] : commands) {
    if (!subcommand->parsed()) continue;
    const absl::Status status = command->Run();
    if (status.ok()) return FlushOutput();
    PrintError(std::string(status.message()));
    return ExitCode(status);
  }
  return kExitUsage;
}

}  // namespace
}  // namespace maskkv::cli

int main(int argc, char** argv) {
  try {
    return maskkv::cli::Main(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fputs("maskkv: out of memory\n", stderr);
    return maskkv::cli::kExitNoResources;
  } catch (const std::exception& error) {
    // Of the standard library; ours throws nothing.
    std::fprintf(stderr, "maskkv: internal error: %s\n", error.what());
    return maskkv::cli::kExitInternal;
  }
}
