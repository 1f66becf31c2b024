// SPDX-License-Identifier: Apache-2.0
//
// What gRPC and protobuf print of their own becomes lines of our log, instead of text in between.
#ifndef MASKKV_SERVICES_COMMON_LIBRARY_LOGS_H_
#define MASKKV_SERVICES_COMMON_LIBRARY_LOGS_H_

namespace maskkv::services {

// gRPC's errors are warnings of ours: they concern a connection, not a request. protobuf's are
// notes for debugging: any peer can cause them. Thread safe; the first call counts.
void RouteLibraryLogs();

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_LIBRARY_LOGS_H_
