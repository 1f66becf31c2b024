// SPDX-License-Identifier: Apache-2.0
//
// A valid entry written into a reservation, as prefill would.
#ifndef MASKKV_TESTS_SUPPORT_SMALL_ENTRY_H_
#define MASKKV_TESTS_SUPPORT_SMALL_ENTRY_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>

#include "core/arena/entry_writer.h"
#include "core/arena/handle.h"
#include "core/base/check.h"
#include "tests/support/entry_bytes.h"

namespace maskkv::testing {

// Any entry of WriteSmallEntry fits.
inline constexpr std::uint64_t kSmallEntryBytes = 16384;

// Returns the bytes used. Equal seeds give equal content.
inline std::uint64_t WriteSmallEntry(std::span<std::byte> memory, const arena::Handle& handle,
                                     std::uint64_t seed = 1,
                                     const arena::Digest& model_fingerprint = {}) {
  std::mt19937_64 random(seed);
  EntryContent content = RandomContent(random);
  content.metadata.epoch = handle.epoch;
  content.metadata.entry_id = handle.entry_id;
  content.metadata.model_fingerprint = model_fingerprint;
  arena::EntryWriter writer(memory, content.metadata);
  MASKKV_CHECK(WriteContent(content, random, writer).ok(), "a small entry fits");
  const auto used = writer.Complete(content.metadata.kept_mass);
  MASKKV_CHECK(used.ok(), "a finished entry is completed");
  return *used;
}

}  // namespace maskkv::testing

#endif  // MASKKV_TESTS_SUPPORT_SMALL_ENTRY_H_
