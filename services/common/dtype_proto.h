// SPDX-License-Identifier: Apache-2.0
//
// Types of cached pairs between the API and the engine. Pure functions.
#ifndef MASKKV_SERVICES_COMMON_DTYPE_PROTO_H_
#define MASKKV_SERVICES_COMMON_DTYPE_PROTO_H_

#include "kernels/base/dtype.h"

namespace maskkv::v1 {
enum KvDtype : int;
}

namespace maskkv::services {

// REQUIRES: KvDtype_IsValid(message). unspecified: what KV_DTYPE_UNSPECIFIED stands for.
kernels::DType FromProto(v1::KvDtype message, kernels::DType unspecified);

v1::KvDtype ToProto(kernels::DType dtype);

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_DTYPE_PROTO_H_
