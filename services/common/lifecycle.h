// SPDX-License-Identifier: Apache-2.0
//
// What the mains of all services share: one place that waits for SIGTERM or SIGINT, the ready line,
// flags from a command line or a configuration file, exit codes.
#ifndef MASKKV_SERVICES_COMMON_LIFECYCLE_H_
#define MASKKV_SERVICES_COMMON_LIFECYCLE_H_

#include <chrono>
#include <functional>
#include <string>

#include "absl/status/status.h"

namespace CLI {
class App;
}

namespace maskkv::services {

// Blocks SIGTERM and SIGINT in the calling thread and all it starts afterwards. Call it first in
// main.
void BlockSignals();

// Returns when SIGTERM or SIGINT has arrived. A second signal ends the process at once (exit 130).
void WaitForSignal();

// Prints one line to standard output, flushed:
//   {"ready": true, "grpc": "HOST:PORT", "metrics": "HOST:PORT"}
void PrintReady(const std::string& grpc, const std::string& metrics);

// Declares --config FILE on `app`: a TOML file whose section `section` (as [prefill]) sets the
// flags that the command line does not. An unknown key is an error that names file and key.
void DeclareConfig(CLI::App& app, const std::string& section);

// Parses, runs `body`, and turns its status into an exit code: 0 done, 1 internal, 2 usage, 3 bad
// input, 4 out of resources. Errors are one line on standard error. Catches what libraries throw.
int RunMain(int argc, char** argv, CLI::App& app, const std::function<absl::Status()>& body);

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_LIFECYCLE_H_
