// SPDX-License-Identifier: Apache-2.0
#include "services/common/lifecycle.h"

#include <signal.h>  // POSIX: <csignal> need not declare sigwait and sigaction
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/telemetry/log.h"
#include "services/common/printable.h"

namespace maskkv::services {
namespace {

enum ExitCode { kOk = 0, kInternal = 1, kUsage = 2, kBadInput = 3, kNoResources = 4 };
constexpr int kInterrupted = 130;
constexpr std::size_t kMaxErrorBytes = 2048;

sigset_t StopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

void PrintError(const CLI::App& app, const std::string& message) {
  std::fprintf(stderr, "%s: %s\n", app.get_name().c_str(),
               Printable(message, kMaxErrorBytes).c_str());
}

// One section of a TOML file that all services share.
class SectionConfig final : public CLI::ConfigTOML {
 public:
  SectionConfig(const CLI::App& app, std::string wanted) : app_(app), wanted_(std::move(wanted)) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> mine;
    for (CLI::ConfigItem& item : CLI::ConfigTOML::from_config(input)) {
      if (item.name == "++" || item.name == "--") continue;  // begin and end of a section
      if (item.parents.empty()) Refuse(item, "keys below a [section] only");
      if (item.parents.front() != wanted_) continue;
      const CLI::Option* const flag = app_.get_option_no_throw("--" + item.name);
      if (item.parents.size() > 1 || flag == nullptr || !flag->get_configurable()) {
        Refuse(item, "the name of a flag of [" + wanted_ + "]");
      }
      item.parents.clear();
      mine.push_back(std::move(item));
    }
    return mine;
  }

 private:
  [[noreturn]] void Refuse(const CLI::ConfigItem& item, const std::string& expected) const {
    const std::string file = app_.get_config_ptr()->as<std::string>();
    throw CLI::ConfigError(file + ": expected " + expected + ", found " + item.fullname());
  }

  const CLI::App& app_;
  const std::string wanted_;
};

int CodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kDataLoss:
      return kBadInput;
    case absl::StatusCode::kResourceExhausted:
      return kNoResources;
    case absl::StatusCode::kCancelled:
      return kInterrupted;
    default:
      return kInternal;
  }
}

// A daemon holds a descriptor an entry and a connection: as many as the system allows.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

int Run(int argc, char** argv, CLI::App& app, const std::function<absl::Status()>& body) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    PrintError(app, std::string(error.what()) + " (see --help)");
    return kUsage;
  }
  RaiseDescriptorLimit();
  const absl::Status status = body();
  telemetry::CloseLog();
  if (!status.ok()) PrintError(app, std::string(status.message()));
  return CodeOf(status);
}

}  // namespace

void BlockSignals() {
  const sigset_t set = StopSignals();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);  // a reader that has gone is an error of a write, not our end
}

void WaitForSignal() {
  const sigset_t set = StopSignals();
  int arrived = 0;
  while (::sigwait(&set, &arrived) != 0) {
  }
  struct sigaction at_once {};
  at_once.sa_handler = [](int) { ::_exit(kInterrupted); };
  for (const int signal : {SIGTERM, SIGINT}) ::sigaction(signal, &at_once, nullptr);
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void PrintReady(const std::string& grpc, const std::string& metrics) {
  const auto quoted = [](const std::string& text) {
    return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  };
  std::printf("{\"ready\": true, \"grpc\": %s, \"metrics\": %s}\n", quoted(grpc).c_str(),
              quoted(metrics).c_str());
  std::fflush(stdout);
}

void DeclareConfig(CLI::App& app, const std::string& section) {
  app.set_config("--config", "",
                 "TOML file whose section [" + section + "] sets flags that are not given here");
  app.config_formatter(std::make_shared<SectionConfig>(app, section));
}

int RunMain(int argc, char** argv, CLI::App& app, const std::function<absl::Status()>& body) {
  try {
    return Run(argc, argv, app, body);
  } catch (const std::bad_alloc&) {
    PrintError(app, "out of memory");
    return kNoResources;
  } catch (const std::exception& error) {
    PrintError(app, std::string("internal error: ") + error.what());
    return kInternal;
  }
}

}  // namespace maskkv::services
