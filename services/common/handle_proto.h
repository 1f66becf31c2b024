// SPDX-License-Identifier: Apache-2.0
//
// Handles as messages and back. Pure.
#ifndef MASKKV_SERVICES_COMMON_HANDLE_PROTO_H_
#define MASKKV_SERVICES_COMMON_HANDLE_PROTO_H_

#include "core/arena/handle.h"

namespace maskkv::v1 {
class Handle;
}

namespace maskkv::services {

void ToProto(const arena::Handle& handle, v1::Handle& message);
arena::Handle FromProto(const v1::Handle& message);

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_HANDLE_PROTO_H_
