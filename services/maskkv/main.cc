// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "services/maskkv/command.h"

namespace maskkv::cli {
namespace {

// An error message is one line, whatever a file name or a field held.
void PrintError(std::string message) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  std::fprintf(stderr, "maskkv: %s\n", message.c_str());
}

int Main(int argc, char** argv) {
  CLI::App app{"maskkv: masked diffusion language models over a compressed prompt cache"};
  app.set_version_flag("--version", "maskkv " MASKKV_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Exit codes: 0 done, 1 internal, 2 usage, 3 bad input, 4 out of resources, 130 interrupted");
  std::vector<std::pair<CLI::App*, std::unique_ptr<Command>>> commands;
  for (auto* make : {&MakeGenerateCommand, &MakeCalibrateCommand, &MakeInspectCommand,
                     &MakeEvaluateCommand, &MakeBenchCommand}) {
    std::unique_ptr<Command> command = make(app);
    commands.emplace_back(app.get_subcommands({}).back(), std::move(command));
  }

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    PrintError(std::string(error.what()) + " (see --help)");
    return kExitUsage;
  }
  WatchSignals();
  for (const auto& [subcommand, command] : commands) {
    if (!subcommand->parsed()) continue;
    const absl::Status status = command->Run();
    if (!status.ok()) PrintError(std::string(status.message()));
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
  }
}
