// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as an entry in shared memory: an error of one line, or an index all of whose arrays lie
// in the memory. The first byte chooses whether the rest is taken as it is, or gets this version's
// magic, layout and right checksums, as whoever can write an entry could give it.
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/arena/entry_index.h"
#include "core/arena/mapped_entry.h"
#include "core/base/check.h"
#include "tests/fuzz/message_check.h"
#include "tests/support/entry_bytes.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace maskkv;
  if (size == 0) return 0;
  const auto input = std::as_bytes(std::span(data, size));
  const bool repair = (data[0] & 1) != 0;
  testing::EntryBytes entry(input.subspan(1));
  arena::EntryExpectation expectation;
  expectation.verify_checksums = (data[0] & 2) == 0;
  if (entry.bytes().size() >= sizeof(arena::EntryHeader)) {
    arena::EntryHeader& header = entry.header();
    if (repair) {
      header.magic = arena::kEntryMagic;
      header.format_version = arena::kEntryFormatVersion;
      header.header_bytes = sizeof(arena::EntryHeader);
      header.layout_hash = arena::LayoutHash();
      entry.FixChecksums();
    }
    expectation.epoch = header.epoch;
    expectation.entry_id = header.entry_id;
  }
  const auto index = arena::ValidateEntry(entry.bytes(), expectation);
  if (!index.ok()) {
    CheckMessage(index.status(), "entry");
    return 0;
  }
  testing::CheckIndex(entry.bytes(), *index);
  const auto view = arena::MappedEntry::Over(entry.bytes(), expectation);
  MASKKV_CHECK(view.ok(), "what is valid can be viewed");
  MASKKV_CHECK((*view)->bytes() == index->payload_bytes, "the same payload");
  return 0;
}
