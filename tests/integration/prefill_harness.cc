// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/prefill_harness.h"

#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <random>
#include <sstream>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "services/common/call.h"
#include "services/common/handle_proto.h"
#include "services/common/status.h"
#include "tests/support/status_matchers.h"

namespace maskkv::testing {

void ReserveGate::Hold() {
  const std::lock_guard lock(mu_);
  open_ = false;
}

void ReserveGate::Open() {
  const std::lock_guard lock(mu_);
  open_ = true;
  changed_.notify_all();
}

int ReserveGate::held() const {
  const std::lock_guard lock(mu_);
  return held_;
}

bool ReserveGate::Pass(const std::function<bool()>& cancelled) {
  std::unique_lock lock(mu_);
  ++held_;
  while (!open_ && !cancelled()) changed_.wait_for(lock, std::chrono::milliseconds(5));
  --held_;
  return open_;
}

class CacheDaemon::Front final : public v1::CacheService::Service {
 public:
  Front(const std::string& address, ReserveGate& gate)
      : gate_(gate),
        stub_(v1::CacheService::NewStub(
            grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))) {}

  grpc::Status Reserve(grpc::ServerContext* context, const v1::ReserveRequest* request,
                       v1::ReserveResponse* response) override {
    if (!gate_.Pass([&] { return context->IsCancelled(); })) {
      return {grpc::StatusCode::CANCELLED, "the caller has gone"};
    }
    return PassOn(context, &Stub::Reserve, *request, response);
  }
  grpc::Status Seal(grpc::ServerContext* context, const v1::SealRequest* request,
                    v1::SealResponse* response) override {
    return PassOn(context, &Stub::Seal, *request, response);
  }
  grpc::Status Lease(grpc::ServerContext* context, const v1::LeaseRequest* request,
                     v1::LeaseResponse* response) override {
    return PassOn(context, &Stub::Lease, *request, response);
  }
  grpc::Status Renew(grpc::ServerContext* context, const v1::RenewRequest* request,
                     v1::RenewResponse* response) override {
    return PassOn(context, &Stub::Renew, *request, response);
  }
  grpc::Status Release(grpc::ServerContext* context, const v1::ReleaseRequest* request,
                       v1::ReleaseResponse* response) override {
    return PassOn(context, &Stub::Release, *request, response);
  }
  grpc::Status Stat(grpc::ServerContext* context, const v1::StatRequest* request,
                    v1::StatResponse* response) override {
    return PassOn(context, &Stub::Stat, *request, response);
  }

 private:
  using Stub = v1::CacheService::Stub;

  template <typename Request, typename Response>
  grpc::Status PassOn(grpc::ServerContext* context,
                      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                      const Request& request, Response* response) {
    const std::unique_ptr<grpc::ClientContext> out =
        grpc::ClientContext::FromServerContext(*context);
    for (const auto& [key, value] : context->client_metadata()) {
      const std::string name(key.data(), key.size());
      if (name.starts_with("maskkv-")) out->AddMetadata(name, {value.data(), value.size()});
    }
    return (stub_.get()->*method)(out.get(), request, response);
  }

  ReserveGate& gate_;
  const std::unique_ptr<Stub> stub_;
};

CacheDaemon::CacheDaemon(const std::string& address, const std::string& socket,
                         std::uint64_t capacity, std::uint64_t quota, ReserveGate& gate) {
  cache::CacheServiceOptions options;
  options.limits.capacity_bytes = capacity;
  options.limits.quota_bytes = quota;
  options.socket = socket;
  auto service = cache::CacheService::Start(options, registry_);
  EXPECT_THAT(service, IsOk());
  service_.emplace(*std::move(service));
  const std::array<grpc::Service*, 1> inner_services{&service_->service()};
  auto inner = services::Server::Start({}, inner_services, registry_);
  EXPECT_THAT(inner, IsOk());
  inner_.emplace(*std::move(inner));
  front_ = std::make_unique<Front>(inner_->address(), gate);
  const std::array<grpc::Service*, 1> outer_services{front_.get()};
  auto outer = services::Server::Start({.listen = {address}}, outer_services, registry_);
  EXPECT_THAT(outer, IsOk());
  outer_.emplace(*std::move(outer));
}

CacheDaemon::~CacheDaemon() {
  outer_->Drain(std::chrono::milliseconds(0));
  outer_.reset();
  inner_->Drain(std::chrono::milliseconds(0));
  inner_.reset();
}

PrefillHarness::PrefillHarness(PrefillHarnessOptions wanted) : options(std::move(wanted)) {
  if (options.cache_at_start) StartCache();
  auto loaded = services::ModelRuntime::Load(
      {.directory = MASKKV_SOURCE_DIR "/" + options.model, .placement = {.threads = 1}});
  EXPECT_THAT(loaded, IsOk());
  model = *std::move(loaded);
  services::CacheClientOptions to_cache;
  to_cache.address = "unix:" + folder.File("cache.grpc");
  to_cache.socket = folder.File("cache.sock");
  to_cache.answer_within_ms = options.answer_within_ms;
  auto client = services::CacheClient::Create(to_cache);
  EXPECT_THAT(client, IsOk());
  prefill::PrefillServiceOptions service_options = options.service;
  service_options.model = model;
  service_options.cache = *std::move(client);
  service_options.registry = &registry;
  auto started = prefill::PrefillService::Start(service_options);
  EXPECT_THAT(started, IsOk());
  service.emplace(*std::move(started));
  const std::array<grpc::Service*, 1> registered{&service->service()};
  auto running = services::Server::Start({}, registered, registry);
  EXPECT_THAT(running, IsOk());
  server.emplace(*std::move(running));
  stub = v1::PrefillService::NewStub(
      grpc::CreateChannel(server->address(), grpc::InsecureChannelCredentials()));
}

PrefillHarness::~PrefillHarness() {
  gate.Open();
  service->Stop();
  server->Drain(std::chrono::milliseconds(0));
  server.reset();
}

void PrefillHarness::StartCache() {
  cache.emplace("unix:" + folder.File("cache.grpc"), folder.File("cache.sock"),
                options.cache_capacity, options.tenant_quota, gate);
}

absl::StatusOr<v1::PrefillResponse> PrefillHarness::Prefill(const v1::PrefillRequest& request,
                                                            const std::string& tenant) {
  grpc::ClientContext context;
  if (!tenant.empty()) context.AddMetadata(services::kTenantKey, tenant);
  return Prefill(context, request);
}

absl::StatusOr<v1::PrefillResponse> PrefillHarness::Prefill(grpc::ClientContext& context,
                                                            const v1::PrefillRequest& request) {
  v1::PrefillResponse response;
  const grpc::Status status = stub->Prefill(&context, request, &response);
  if (!status.ok()) return services::FromGrpc(status);
  return response;
}

std::shared_ptr<const arena::MappedEntry> PrefillHarness::Map(const v1::Handle& handle,
                                                              const std::string& tenant) {
  arena::CacheManager& manager = cache->manager();
  const auto token =
      manager.OpenSession({.uid = ::getuid(), .tenant = tenant, .is_service = false});
  EXPECT_THAT(token, IsOk());
  const auto caller = manager.Authenticate(*token, "");
  EXPECT_THAT(caller, IsOk());
  const auto lease = manager.Lease(*caller, services::FromProto(handle), Duration::zero());
  EXPECT_THAT(lease, IsOk());
  auto descriptor = manager.ReadDescriptor(*token, lease->id);
  EXPECT_THAT(descriptor, IsOk());
  auto entry =
      arena::MappedEntry::Map(std::move(descriptor->fd),
                              {.epoch = handle.epoch(),
                               .entry_id = handle.entry_id(),
                               .bytes = descriptor->bytes,
                               .model_fingerprint = model->fingerprint_digest()},
                              [&manager, session = *token] { manager.CloseSession(session); });
  EXPECT_THAT(entry, IsOk());
  return entry.ok() ? *std::move(entry) : nullptr;
}

double PrefillHarness::Metric(const std::string& series) const {
  std::istringstream lines(registry.Scrape());
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(series) && line[series.size()] == ' ') {
      return std::atof(line.c_str() + series.size());
    }
  }
  ADD_FAILURE() << "expected the series " << series << ", found none";
  return -1;
}

double PrefillHarness::Finished(const std::string& reason) const {
  return Metric(absl::StrFormat(
      "maskkv_requests_finished_total{finish_reason=\"%s\",service=\"prefill\"}", reason));
}

double PrefillHarness::WaitingFor(const std::string& reason) const {
  return Metric(absl::StrFormat(
      "maskkv_requests_waiting_by_reason{reason=\"%s\",service=\"prefill\"}", reason));
}

std::vector<std::int32_t> TokensOf(const model::ModelConfig& config, std::int64_t count,
                                   std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::int32_t> ids;
  while (static_cast<std::int64_t>(ids.size()) < count) {
    const auto id =
        static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(config.vocab_size));
    if (id != config.mask_id) ids.push_back(id);
  }
  return ids;
}

v1::PrefillRequest RequestOf(const std::vector<std::int32_t>& ids, std::int64_t masks,
                             std::int64_t budget) {
  v1::PrefillRequest request;
  request.mutable_prompt()->mutable_tokens()->mutable_ids()->Assign(ids.begin(), ids.end());
  request.set_masks(masks);
  request.mutable_keep()->set_budget(budget);
  return request;
}

engine::EvictionPlan UniformPlan(std::int64_t budget) {
  engine::EvictionPlan plan;
  plan.layer_rule = engine::LayerRule::kUniform;
  plan.budget = budget;
  return plan;
}

std::unique_ptr<EngineEntry> EngineAlone(const services::ModelRuntime& model,
                                         const std::vector<std::int32_t>& ids, std::int64_t masks,
                                         const engine::EvictionPlan& plan, double rope_scale) {
  return EngineAlone(model, engine::PromptThenMasks(ids, masks, model.config()), plan, rope_scale);
}

std::unique_ptr<EngineEntry> EngineAlone(const services::ModelRuntime& model,
                                         std::span<const engine::Row> rows,
                                         const engine::EvictionPlan& plan, double rope_scale,
                                         std::optional<kernels::DType> kv_dtype) {
  kernels::WorkerPool pool(2);
  transformer::Transformer transformer(model.weights(), pool, std::ssize(rows));
  engine::Prefiller prefiller(transformer);
  auto alone = std::make_unique<EngineEntry>();
  engine::PrefillRequest request;
  request.rows = rows;
  request.rope_scale = rope_scale;
  request.plan = plan;
  request.kv_dtype = kv_dtype.value_or(model.dtype());
  auto result = prefiller.Run(request, alone->entry);
  EXPECT_THAT(result, IsOk());
  alone->result = *std::move(result);
  return alone;
}

void ExpectSameEntry(const engine::KvView& expected, const engine::KvView& found) {
  ASSERT_TRUE(expected.shape() == found.shape());
  const engine::EntryShape& shape = expected.shape();
  const std::size_t row = static_cast<std::size_t>(shape.head_dim) * kernels::SizeOf(shape.dtype);
  for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
    for (std::int64_t head = 0; head < shape.kv_heads; ++head) {
      const auto& a = expected.Layer(layer)[static_cast<std::size_t>(head)];
      const auto& b = found.Layer(layer)[static_cast<std::size_t>(head)];
      ASSERT_EQ(a.pairs, b.pairs) << "layer " << layer << " head " << head;
      const auto at = expected.Positions(layer, head);
      const auto bt = found.Positions(layer, head);
      ASSERT_TRUE(std::equal(at.begin(), at.end(), bt.begin(), bt.end()));
      const std::size_t bytes = static_cast<std::size_t>(a.pairs) * row;
      if (bytes == 0) continue;
      EXPECT_EQ(std::memcmp(a.k, b.k, bytes), 0) << "layer " << layer << " head " << head;
      EXPECT_EQ(std::memcmp(a.v, b.v, bytes), 0) << "layer " << layer << " head " << head;
      if (!shape.HasScales()) continue;
      for (const auto& [x, y] : {std::pair{a.k_scales, b.k_scales}, {a.v_scales, b.v_scales}}) {
        EXPECT_EQ(std::memcmp(x, y, static_cast<std::size_t>(a.pairs) * sizeof(float)), 0)
            << "layer " << layer << " head " << head;
      }
    }
  }
}

void Until(const std::function<bool()>& condition) {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::minutes(2);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > give_up) {
      FAIL() << "expected the condition to hold some time, found that it never did";
    }
    std::this_thread::yield();
  }
}

}  // namespace maskkv::testing
