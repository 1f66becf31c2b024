// SPDX-License-Identifier: Apache-2.0
//
// What stands behind the decode service in its tests: a prefill service that runs the real engine
// and keeps the entries, in the shared-memory format, in this process, and the mapper that leases
// them. Both can be told to misbehave. Thread safe.
#ifndef MASKKV_TESTS_INTEGRATION_DECODE_BACKENDS_H_
#define MASKKV_TESTS_INTEGRATION_DECODE_BACKENDS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/engine/eviction_plan.h"
#include "services/common/model_runtime.h"
#include "services/decode/entry_source.h"

namespace grpc {
class Service;
}

namespace maskkv::v1 {
class KeepPolicy;
}

namespace maskkv::testing {

// The plan that the prefill service here makes of a policy.
engine::EvictionPlan PlanOf(const v1::KeepPolicy& keep);

class DecodeBackends {
 public:
  explicit DecodeBackends(std::shared_ptr<const services::ModelRuntime> model);
  ~DecodeBackends();

  grpc::Service& prefill();
  decode::EntryMapper mapper();

  // Entries that are leased now.
  std::int64_t leased() const;
  // Prefills that ran.
  std::int64_t prefills() const;
  std::vector<std::string> request_ids() const;

  // The next so many mappings find their entry evicted.
  void EvictBeforeMapping(int times);
  // The prefill after so many more fails with this.
  void FailPrefill(absl::Status status, int after = 0);
  // The next prefill's first values are NaN.
  void PoisonEntry();
  // Prefills rotate keys with this factor, whatever the request says.
  void SetRopeScale(double scale);
  // Prefills, after so many more, wait until the call is given up.
  void BlockPrefills(bool block, int after = 0);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace maskkv::testing

#endif  // MASKKV_TESTS_INTEGRATION_DECODE_BACKENDS_H_
