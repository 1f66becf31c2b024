// SPDX-License-Identifier: Apache-2.0
//
// Types of cached pairs between the API and the engine. Pure functions.
#ifndef MASKKV_SERVICES_COMMON_DTYPE_PROTO_H_
#define MASKKV_SERVICES_COMMON_DTYPE_PROTO_H_

#include "kernels/base/dtype.h"
#include "maskkv/v1/common.pb.h"

namespace maskkv::services {

// REQUIRES: KvDtype_IsValid(message). unspecified: what KV_DTYPE_UNSPECIFIED stands for.
inline kernels::DType FromProto(v1::KvDtype message, kernels::DType unspecified) {
  switch (message) {
    case v1::KV_DTYPE_F32:
      return kernels::DType::kF32;
    case v1::KV_DTYPE_BF16:
      return kernels::DType::kBF16;
    case v1::KV_DTYPE_INT8:
      return kernels::DType::kInt8;
    default:
      return unspecified;
  }
}

inline v1::KvDtype ToProto(kernels::DType dtype) {
  switch (dtype) {
    case kernels::DType::kF32:
      return v1::KV_DTYPE_F32;
    case kernels::DType::kBF16:
      return v1::KV_DTYPE_BF16;
    case kernels::DType::kInt8:
      break;
  }
  return v1::KV_DTYPE_INT8;
}

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_DTYPE_PROTO_H_
