// SPDX-License-Identifier: Apache-2.0
//
// absl::Status on one side, grpc::Status with google.rpc details on the other. Reason, facts and
// retry hint (core/base/error.h) survive the way through any number of processes. Pure functions.
#ifndef MASKKV_SERVICES_COMMON_STATUS_H_
#define MASKKV_SERVICES_COMMON_STATUS_H_

#include "absl/status/status.h"

namespace grpc {
class Status;
}

namespace maskkv::services {

// The message is cut to 1 KiB and made printable; details hold an ErrorInfo always and a RetryInfo
// where there is a hint. OK becomes OK.
grpc::Status ToGrpc(const absl::Status& status);

// What a peer answered. Details that do not parse are dropped, the code stays.
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_STATUS_H_
