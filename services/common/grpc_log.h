// SPDX-License-Identifier: Apache-2.0
//
// What the gRPC library prints of its own becomes lines of our log, instead of text in between.
#ifndef MASKKV_SERVICES_COMMON_GRPC_LOG_H_
#define MASKKV_SERVICES_COMMON_GRPC_LOG_H_

namespace maskkv::services {

// Its errors are warnings of ours: they concern a connection, not a request. Thread safe; the first
// call counts.
void RouteGrpcLog();

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_GRPC_LOG_H_
