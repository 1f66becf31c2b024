// SPDX-License-Identifier: Apache-2.0
//
// A decode service on a real server in this process, over DecodeBackends, and a client that reads
// whole answers. Everything but the cache manager is real.
#ifndef MASKKV_TESTS_INTEGRATION_DECODE_HARNESS_H_
#define MASKKV_TESTS_INTEGRATION_DECODE_HARNESS_H_

#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "core/engine/decode.h"
#include "maskkv/v1/decode.grpc.pb.h"
#include "services/common/server.h"
#include "services/decode/generate.h"
#include "tests/integration/decode_backends.h"

namespace maskkv::testing {

// (step, position, token, confidence), in order.
using Trace = std::vector<std::tuple<std::int64_t, std::int64_t, std::int32_t, float>>;

// A stream, read to its end.
struct Reply {
  absl::Status status;
  v1::Started started;
  std::vector<v1::Step> steps;
  std::map<int, v1::Finished> finished;

  Trace trace(int sample = 0) const;
  std::string text(int sample = 0) const;  // of the steps
};

struct HarnessOptions {
  decode::StepLoopOptions loop;
  std::size_t gate = 64;
  decode::RequestLimits limits;
  const decode::TokenTable* tokens = nullptr;
  std::shared_ptr<const services::ModelRuntime> model;  // null: TestModelRuntime()
};

class DecodeHarness {
 public:
  explicit DecodeHarness(const HarnessOptions& options);

  // Sends the request and reads everything. `prepare` may set deadline and metadata.
  Reply Ask(const v1::GenerateRequest& request,
            const std::function<void(grpc::ClientContext&)>& prepare = {});
  // Reads what is left of a stream; checks that `seq` rises from `seq` by one.
  static Reply ReadAll(grpc::ClientReader<v1::GenerateEvent>& reader, std::uint64_t seq = 0);

  std::unique_ptr<v1::DecodeService::Stub> NewStub() const;

  std::shared_ptr<const services::ModelRuntime> model;
  DecodeBackends backends;
  SteadyClock clock;
  telemetry::Registry registry;
  const decode::Metrics metrics = decode::Metrics::Create(registry);
  decode::RequestGate gate;
  decode::SharedKeptEntries kept;
  std::unique_ptr<services::Server> prefill_server;
  std::unique_ptr<decode::EntrySource> entries;
  std::unique_ptr<decode::StepLoop> loop;
  std::unique_ptr<decode::GenerateHandler> handler;
  std::unique_ptr<v1::DecodeService::Service> service;
  std::unique_ptr<services::Server> server;
};

// What an answer fills in between; nothing: masks at the prompt's end.
struct Around {
  std::vector<std::int32_t> canvas;  // what the answer starts with
  std::vector<std::int32_t> suffix;  // of the prompt
};

// What the engine alone answers: its own prefills, no service.
class EngineAlone {
 public:
  explicit EngineAlone(std::shared_ptr<const services::ModelRuntime> model);

  // selection unset and cache none: the whole canvas in every step.
  Trace Run(const std::vector<std::int32_t>& prompt, const engine::GenerateParams& params,
            const v1::KeepPolicy* keep, double rope_scale = 1, const Around& around = {});

 private:
  std::shared_ptr<const services::ModelRuntime> model_;
  kernels::WorkerPool pool_;
  transformer::Transformer transformer_;
};

// The embedded model, loaded once a process.
std::shared_ptr<const services::ModelRuntime> TestModelRuntime();

}  // namespace maskkv::testing

#endif  // MASKKV_TESTS_INTEGRATION_DECODE_HARNESS_H_
