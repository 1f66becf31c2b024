// SPDX-License-Identifier: Apache-2.0
#include "services/common/dtype_proto.h"

#include "maskkv/v1/common.pb.h"

namespace maskkv::services {

kernels::DType FromProto(v1::KvDtype message, kernels::DType unspecified) {
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

v1::KvDtype ToProto(kernels::DType dtype) {
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
