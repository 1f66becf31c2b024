// SPDX-License-Identifier: Apache-2.0
#include "services/common/plan_watcher.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include "core/base/error.h"
#include "core/telemetry/log.h"
#include "maskkv/v1/budget.grpc.pb.h"
#include "services/common/plan_proto.h"
#include "services/common/server.h"
#include "services/common/status.h"

namespace maskkv::services {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kShortestBackoff{100};
constexpr milliseconds kLongestBackoff{3000};
constexpr milliseconds kReportTimeout{1000};
constexpr std::size_t kMostReports = 16;  // waiting to be sent; the oldest make room

class FollowsNobody final : public PlanWatcher {
 public:
  std::shared_ptr<const budget::Plan> Current() const override { return nullptr; }
  void Report(const v1::ReportRequest&) override {}
};

// A call under way that another thread may cancel; one at a time, none after Stop.
class Cancellable {
 public:
  // False if it is stopped. The context is used until End.
  bool Begin(grpc::ClientContext& context) {
    const std::lock_guard lock(mu_);
    if (stopped_) return false;
    context_ = &context;
    return true;
  }
  void End() {
    const std::lock_guard lock(mu_);
    context_ = nullptr;
  }
  void Stop() {
    const std::lock_guard lock(mu_);
    stopped_ = true;
    if (context_ != nullptr) context_->TryCancel();
  }

 private:
  std::mutex mu_;
  bool stopped_ = false;                    // guarded by mu_
  grpc::ClientContext* context_ = nullptr;  // guarded by mu_
};

class FollowsController final : public PlanWatcher {
 public:
  FollowsController(const std::string& address, std::string watcher)
      : watcher_(std::move(watcher)),
        stub_(v1::BudgetService::NewStub(OpenChannel(address))),
        watching_([this] { Watch(); }),
        reporting_([this] { SendReports(); }) {}

  ~FollowsController() override {
    {
      const std::lock_guard lock(mu_);
      stopped_ = true;
    }
    changed_.notify_all();
    watch_call_.Stop();
    report_call_.Stop();
    watching_.join();
    reporting_.join();
  }

  std::shared_ptr<const budget::Plan> Current() const override {
    const std::lock_guard lock(mu_);
    return current_;
  }

  void Report(const v1::ReportRequest& report) override {
    {
      const std::lock_guard lock(mu_);
      if (reports_.size() == kMostReports) reports_.pop_front();
      reports_.push_back(report);
    }
    changed_.notify_all();
  }

 private:
  void Watch() {
    std::minstd_rand random(std::random_device{}());
    milliseconds backoff = kShortestBackoff;
    bool lost = false;  // said so in the log
    while (true) {
      bool followed = false;
      const absl::Status status = WatchOnce(followed);
      if (followed) {
        backoff = kShortestBackoff;
        lost = false;
      }
      std::unique_lock lock(mu_);
      if (stopped_) return;
      if (!lost) {
        lost = true;
        telemetry::Log(telemetry::LogLevel::kWarning, "budget_controller_away",
                       {{"reason", ErrorReason(status)}, {"has_plan", current_ != nullptr}});
      }
      // At least half of it, so that restarted watchers do not come back as one.
      const milliseconds wait(std::uniform_int_distribution<std::int64_t>(backoff.count() / 2,
                                                                          backoff.count())(random));
      backoff = std::min(2 * backoff, kLongestBackoff);
      if (changed_.wait_for(lock, wait, [this] { return stopped_; })) return;
    }
  }

  // Until the stream ends. followed: whether a plan came.
  absl::Status WatchOnce(bool& followed) {
    grpc::ClientContext context;
    if (!watch_call_.Begin(context)) return absl::OkStatus();
    v1::WatchPlanRequest request;
    request.set_watcher(watcher_);
    const auto reader = stub_->WatchPlan(&context, request);
    v1::WatchPlanResponse response;
    while (reader->Read(&response)) followed = Take(response.plan()) || followed;
    const absl::Status status = FromGrpc(reader->Finish());
    watch_call_.End();
    return status;
  }

  bool Take(const v1::Plan& message) {
    absl::StatusOr<budget::Plan> plan = ReadPlan(message);
    if (!plan.ok()) {
      telemetry::Log(telemetry::LogLevel::kError, "plan_refused",
                     {{"error", std::string(plan.status().message())}});
      return false;
    }
    auto next = std::make_shared<const budget::Plan>(*std::move(plan));
    telemetry::Log(telemetry::LogLevel::kInfo, "plan_followed",
                   {{"generation", static_cast<std::int64_t>(next->generation)},
                    {"cause", std::string_view(next->cause)}});
    const std::lock_guard lock(mu_);
    current_ = std::move(next);
    return true;
  }

  void SendReports() {
    while (true) {
      v1::ReportRequest report;
      {
        std::unique_lock lock(mu_);
        changed_.wait(lock, [this] { return stopped_ || !reports_.empty(); });
        if (stopped_) return;
        report = std::move(reports_.front());
        reports_.pop_front();
      }
      Send(report);
    }
  }

  void Send(const v1::ReportRequest& report) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kReportTimeout);
    if (!report_call_.Begin(context)) return;
    v1::ReportResponse response;
    const absl::Status status = FromGrpc(stub_->Report(&context, report, &response));
    report_call_.End();
    // Absence is said by Watch; a refusal is a mistake of ours or a controller of another model.
    if (status.code() == absl::StatusCode::kInvalidArgument ||
        status.code() == absl::StatusCode::kFailedPrecondition) {
      telemetry::Log(telemetry::LogLevel::kWarning, "report_refused",
                     {{"reason", ErrorReason(status)}, {"error", std::string(status.message())}});
    }
  }

  const std::string watcher_;
  const std::unique_ptr<v1::BudgetService::Stub> stub_;
  Cancellable watch_call_, report_call_;

  mutable std::mutex mu_;
  std::condition_variable changed_;  // of what mu_ guards
  bool stopped_ = false;
  std::shared_ptr<const budget::Plan> current_;
  std::deque<v1::ReportRequest> reports_;

  std::thread watching_, reporting_;  // last: they use all of the above
};

}  // namespace

std::unique_ptr<PlanWatcher> PlanWatcher::Start(const std::string& address,
                                                const std::string& watcher) {
  if (address.empty()) return std::make_unique<FollowsNobody>();
  return std::make_unique<FollowsController>(address, watcher);
}

}  // namespace maskkv::services
