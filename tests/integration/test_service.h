// SPDX-License-Identifier: Apache-2.0
//
// A prefill service without a model: its Prefill does what the test says. Shared by the tests of
// what all servers have in common.
#ifndef MASKKV_TESTS_INTEGRATION_TEST_SERVICE_H_
#define MASKKV_TESTS_INTEGRATION_TEST_SERVICE_H_

#include <grpcpp/channel.h>
#include <grpcpp/server_context.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "core/telemetry/metrics.h"
#include "maskkv/v1/prefill.grpc.pb.h"
#include "services/common/call.h"
#include "services/common/server.h"
#include "services/common/status.h"
#include "tests/support/handover.h"
#include "tests/support/status_matchers.h"

namespace maskkv::testing {

// Opened once; wait until then, or look whether it is.
class Gate {
 public:
  void Open() {
    const std::lock_guard lock(mu_);
    open_ = true;
    changed_.notify_all();
  }
  void Wait() {
    std::unique_lock lock(mu_);
    changed_.wait(lock, [&] { return open_; });
  }
  // Returns when it is open or the call is over.
  absl::Status WaitWhileAlive(const services::Call& call) {
    std::unique_lock lock(mu_);
    while (!open_) {
      if (absl::Status alive = call.Alive(); !alive.ok()) return alive;
      changed_.wait_for(lock, std::chrono::milliseconds(5));
    }
    return absl::OkStatus();
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  bool open_ = false;  // guarded by mu_
};

class TestService final : public v1::PrefillService::Service {
 public:
  using Handler = std::function<absl::Status(const services::Call&, const v1::PrefillRequest&,
                                             v1::PrefillResponse&)>;
  Handler on_prefill = [](const services::Call&, const v1::PrefillRequest&, v1::PrefillResponse&) {
    return absl::OkStatus();
  };

  grpc::Status Prefill(grpc::ServerContext* context, const v1::PrefillRequest* request,
                       v1::PrefillResponse* response) override {
    Handover();
    const auto call = services::Call::Read(*context, request->request_id());
    if (!call.ok()) return services::ToGrpc(call.status());
    const absl::Status status = on_prefill(*call, *request, *response);
    Handover();
    return services::ToGrpc(status);
  }

  // Reads nothing of the call.
  grpc::Status ModelInfo(grpc::ServerContext*, const v1::ModelInfoRequest*,
                         v1::ModelInfoResponse* response) override {
    response->set_model_name("none");
    return grpc::Status::OK;
  }
};

// A call of Prefill over `channel`; `prepare` may add metadata and a deadline.
inline absl::Status CallPrefill(const std::shared_ptr<grpc::Channel>& channel,
                                const v1::PrefillRequest& request = {},
                                const std::function<void(grpc::ClientContext&)>& prepare = {}) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  if (prepare) prepare(context);
  v1::PrefillResponse response;
  Handover();
  const grpc::Status status =
      v1::PrefillService::NewStub(channel)->Prefill(&context, request, &response);
  Handover();
  return services::FromGrpc(status);
}

}  // namespace maskkv::testing

#endif  // MASKKV_TESTS_INTEGRATION_TEST_SERVICE_H_
