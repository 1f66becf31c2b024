// SPDX-License-Identifier: Apache-2.0
#include "services/common/handle_proto.h"

#include "maskkv/v1/common.pb.h"

namespace maskkv::services {

void ToProto(const arena::Handle& handle, v1::Handle& message) {
  message.set_owner(handle.owner);
  message.set_epoch(handle.epoch);
  message.set_entry_id(handle.entry_id);
  message.set_version(handle.version);
  message.set_nonce(handle.nonce);
}

arena::Handle FromProto(const v1::Handle& message) {
  return {message.owner(), message.epoch(), message.entry_id(), message.version(), message.nonce()};
}

}  // namespace maskkv::services
