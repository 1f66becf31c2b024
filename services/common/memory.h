// SPDX-License-Identifier: Apache-2.0
//
// What this process takes of the machine's memory and what it may still take, as Linux tells.
// Functions without state, apart from the peak that the kernel keeps. A figure that the kernel does
// not give is 0, a limit that it does not give is none.
#ifndef MASKKV_SERVICES_COMMON_MEMORY_H_
#define MASKKV_SERVICES_COMMON_MEMORY_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "core/model/config.h"

namespace maskkv::services {

// Peak resident bytes of this process since its start or the last reset.
std::int64_t PeakMemoryBytes();
// Resident bytes now.
std::int64_t ResidentMemoryBytes();
// Makes the peak start again from the current value. False where the kernel does not allow it.
bool ResetPeakMemory();

// Bytes that can still be allocated: the least of what the machine has available, what is left of
// the control group's limit and what is left of the limit on the address space.
std::int64_t AvailableMemoryBytes();

// Whether a run over `positions` rows can fit at all. Counts what any such run holds at once, the
// rotation table, hidden states and `kv_layers` layers of K and V, so it refuses nothing that would
// fit; it is there because Linux grants what it does not have and kills later.
// available: as AvailableMemoryBytes().
// Errors: RESOURCE_EXHAUSTED (OUT_OF_MEMORY), bytes needed, available and missing.
absl::Status CheckFits(const model::ModelConfig& config, std::int64_t positions,
                       std::int64_t kv_layers, std::int64_t available = AvailableMemoryBytes());

// Whether `needed` bytes for what `what` says can be had. Errors: as above.
absl::Status CheckBytesFit(std::int64_t needed, std::string_view what,
                           std::int64_t available = AvailableMemoryBytes());

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_MEMORY_H_
