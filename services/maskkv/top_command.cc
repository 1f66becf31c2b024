// SPDX-License-Identifier: Apache-2.0
//
// maskkv top: a live view of running services, from their metrics alone: requests, steps, memory,
// budgets. On a terminal it redraws in place until interrupted.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "core/base/status_macros.h"
#include "services/maskkv/command.h"
#include "services/maskkv/flag_checks.h"
#include "services/maskkv/metrics_page.h"
#include "services/maskkv/top_view.h"

namespace maskkv::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kTopExamples = R"(Examples:
  maskkv top --metrics 127.0.0.1:9400                        # maskkv serve
  maskkv top --metrics HOST:9401,HOST:9402,HOST:9403,HOST:9404
  maskkv top --metrics 127.0.0.1:9400 --once                 # two readings, then done)";

class TopCommand final : public Command {
 public:
  explicit TopCommand(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("top", "Show what running services do");
    sub->footer(std::string(kTopExamples) + "\n\n" + kExitCodesHelp);
    sub->add_option("--metrics", addresses_, "HOST:PORT of the processes' metrics")
        ->required()
        ->delimiter(',');
    sub->add_option("--interval-ms", interval_ms_, "Time between readings")
        ->check(IntegerIn(100, 60000))
        ->capture_default_str();
    sub->add_flag("--once", once_, "Print one view and end");
  }

  absl::Status Run() override {
    MASKKV_ASSIGN_OR_RETURN(MetricsPage before, Read());
    Clock::time_point then = Clock::now();
    const bool terminal = isatty(STDOUT_FILENO) == 1;
    std::size_t drawn = 0;
    while (!Interrupted()) {
      Wait();
      if (Interrupted()) break;
      MASKKV_ASSIGN_OR_RETURN(MetricsPage now, Read());
      const Clock::time_point time = Clock::now();
      const std::vector<std::string> lines =
          TopLines(before, now, std::chrono::duration<double>(time - then).count());
      if (lines.empty()) {
        return absl::InvalidArgumentError("--metrics: expected maskkv's metrics, found others");
      }
      // Over the last view; a line that shrank is cleared to its end.
      if (terminal && drawn > 0) std::printf("\x1b[%zuF\x1b[J", drawn);
      for (const std::string& line : lines) std::printf("%s\n", line.c_str());
      std::fflush(stdout);
      drawn = lines.size();
      if (once_) return absl::OkStatus();
      before = std::move(now);
      then = time;
    }
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<MetricsPage> Read() const {
    MetricsPage all;
    for (const std::string& address : addresses_) {
      MASKKV_ASSIGN_OR_RETURN(const MetricsPage page, MetricsPage::Fetch(address));
      all.Add(page);
    }
    return all;
  }

  // An interval, or less when a signal comes.
  void Wait() const {
    constexpr int kSlices = 20;
    for (int slice = 0; slice < kSlices && !Interrupted(); ++slice) {
      usleep(static_cast<useconds_t>(interval_ms_ * 1000 / kSlices));
    }
  }

  std::vector<std::string> addresses_;
  std::int64_t interval_ms_ = 1000;
  bool once_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeTopCommand(CLI::App& app) { return std::make_unique<TopCommand>(app); }

}  // namespace maskkv::cli
