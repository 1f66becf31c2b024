// SPDX-License-Identifier: Apache-2.0
#include "services/budget/budget_service.h"

#include <grpcpp/server_context.h>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/status_macros.h"
#include "core/telemetry/log.h"
#include "maskkv/v1/budget.grpc.pb.h"
#include "services/common/call.h"
#include "services/common/plan_proto.h"
#include "services/common/printable.h"
#include "services/common/status.h"

namespace maskkv::budget_service {
namespace {

using services::Call;

constexpr std::chrono::milliseconds kLook{20};  // how often a watch looks whether its call lives
constexpr std::size_t kLongestName = 128;
constexpr std::ptrdiff_t kLongestComment = 256;

// "ipv4" of "ipv4:127.0.0.1:4711". Addresses are not logged.
std::string PeerKind(const grpc::ServerContext& context) {
  const std::string peer = context.peer();
  return peer.substr(0, peer.find(':'));
}

// Protobuf has made sure that it is UTF-8.
absl::Status CheckComment(const std::string& comment) {
  const auto control = [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; };
  const auto starts = [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; };
  if (std::ranges::none_of(comment, control) &&
      std::ranges::count_if(comment, starts) <= kLongestComment) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kInvalidArgument, "INVALID_ARGUMENT",
      absl::StrFormat("comment: expected at most %d printable characters, found others",
                      kLongestComment),
      {{"field", "comment"}});
}

absl::Status CheckWatcher(const std::string& watcher) {
  if (watcher.empty() || services::IsPrintableAscii(watcher, 1, kLongestName)) {
    return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kInvalidArgument, "INVALID_ARGUMENT",
                   "watcher: expected 1 to 128 printable ASCII characters, found others",
                   {{"field", "watcher"}});
}

class Handlers final : public v1::BudgetService::Service {
 public:
  explicit Handlers(PlanKeeper& keeper) : keeper_(keeper) {}

  grpc::Status GetPlan(grpc::ServerContext* context, const v1::GetPlanRequest*,
                       v1::GetPlanResponse* response) override {
    const auto call = Call::Read(*context, "");
    if (!call.ok()) return services::ToGrpc(call.status());
    const PlanKeeper::InForce in_force = keeper_.Current();
    services::FillPlan(*in_force.plan, *response->mutable_plan());
    services::FillPolicy(in_force.policy, *response->mutable_policy());
    return grpc::Status::OK;
  }

  grpc::Status WatchPlan(grpc::ServerContext* context, const v1::WatchPlanRequest* request,
                         grpc::ServerWriter<v1::WatchPlanResponse>* writer) override {
    return services::ToGrpc(Watch(*context, *request, *writer));
  }

  grpc::Status SetPolicy(grpc::ServerContext* context, const v1::SetPolicyRequest* request,
                         v1::SetPolicyResponse* response) override {
    return services::ToGrpc(Set(*context, *request, *response));
  }

  grpc::Status Report(grpc::ServerContext* context, const v1::ReportRequest* request,
                      v1::ReportResponse* response) override {
    return services::ToGrpc(Take(*context, *request, *response));
  }

 private:
  absl::Status Watch(const grpc::ServerContext& context, const v1::WatchPlanRequest& request,
                     grpc::ServerWriter<v1::WatchPlanResponse>& writer) {
    MASKKV_ASSIGN_OR_RETURN(const Call call, Call::Read(context, ""));
    MASKKV_RETURN_IF_ERROR(CheckWatcher(request.watcher()));
    telemetry::Log(telemetry::LogLevel::kInfo, "watch_begins",
                   {{"watcher", std::string_view(request.watcher())}});
    std::uint64_t sent = 0;  // no generation is 0
    while (true) {
      MASKKV_RETURN_IF_ERROR(call.Alive());
      const PlanKeeper::PlanPointer plan = keeper_.WaitForOther(sent, kLook);
      if (keeper_.stopped()) return services::DrainingError();
      if (plan == nullptr) continue;
      v1::WatchPlanResponse response;
      services::FillPlan(*plan, *response.mutable_plan());
      // Waits for a slow reader; then the newest plan follows, not those in between.
      if (!writer.Write(response)) return absl::CancelledError("the watcher has gone");
      sent = plan->generation;
    }
  }

  absl::Status Set(const grpc::ServerContext& context, const v1::SetPolicyRequest& request,
                   v1::SetPolicyResponse& response) {
    MASKKV_ASSIGN_OR_RETURN(const Call call, Call::Read(context, ""));
    if (!request.has_policy()) {
      return MakeError(absl::StatusCode::kInvalidArgument, "BAD_POLICY",
                       "policy: expected a whole policy, found none", {{"field", "policy"}});
    }
    MASKKV_RETURN_IF_ERROR(CheckComment(request.comment()));
    MASKKV_ASSIGN_OR_RETURN(const budget::Policy policy, services::ReadPolicy(request.policy()));
    std::optional<std::uint64_t> expected;
    if (request.has_expected_generation()) expected = request.expected_generation();
    MASKKV_ASSIGN_OR_RETURN(
        const PlanKeeper::PlanPointer plan,
        keeper_.SetPolicy(policy, expected, {call.tenant(), PeerKind(context), request.comment()}));
    services::FillPlan(*plan, *response.mutable_plan());
    return absl::OkStatus();
  }

  absl::Status Take(const grpc::ServerContext& context, const v1::ReportRequest& request,
                    v1::ReportResponse& response) {
    MASKKV_RETURN_IF_ERROR(Call::Read(context, "").status());
    MASKKV_ASSIGN_OR_RETURN(const budget::Observation observation, services::ReadReport(request));
    MASKKV_ASSIGN_OR_RETURN(const std::uint64_t generation, keeper_.Observe(observation));
    response.set_generation(generation);
    return absl::OkStatus();
  }

  PlanKeeper& keeper_;
};

// Calls Tick until it is destroyed.
class Ticker {
 public:
  Ticker(PlanKeeper& keeper, std::chrono::milliseconds every)
      : thread_([this, &keeper, every] { Run(keeper, every); }) {}
  ~Ticker() {
    {
      const std::lock_guard lock(mu_);
      stopped_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

 private:
  void Run(PlanKeeper& keeper, std::chrono::milliseconds every) {
    std::unique_lock lock(mu_);
    while (!changed_.wait_for(lock, every, [this] { return stopped_; })) {
      lock.unlock();
      keeper.Tick();
      lock.lock();
    }
  }

  std::mutex mu_;
  std::condition_variable changed_;
  bool stopped_ = false;  // guarded by mu_
  std::thread thread_;    // last: it uses all of the above
};

}  // namespace

struct BudgetService::Impl {
  SteadyClock clock;
  std::unique_ptr<PlanKeeper> keeper;
  std::unique_ptr<Handlers> handlers;
  std::unique_ptr<Ticker> ticker;
};

absl::StatusOr<BudgetService> BudgetService::Start(const BudgetServiceOptions& options,
                                                   telemetry::Registry& registry) {
  auto impl = std::make_unique<Impl>();
  MASKKV_ASSIGN_OR_RETURN(impl->keeper, PlanKeeper::Open(options.keeper, impl->clock, registry));
  impl->handlers = std::make_unique<Handlers>(*impl->keeper);
  if (options.tick.count() > 0) {
    impl->ticker = std::make_unique<Ticker>(*impl->keeper, options.tick);
  }
  return BudgetService(std::move(impl));
}

BudgetService::BudgetService(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
BudgetService::BudgetService(BudgetService&&) noexcept = default;
BudgetService& BudgetService::operator=(BudgetService&&) noexcept = default;
BudgetService::~BudgetService() = default;

grpc::Service& BudgetService::service() { return *impl_->handlers; }
PlanKeeper& BudgetService::keeper() { return *impl_->keeper; }

void BudgetService::BeginDrain() {
  impl_->ticker.reset();
  impl_->keeper->Stop();
}

}  // namespace maskkv::budget_service
