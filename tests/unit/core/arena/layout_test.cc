// SPDX-License-Identifier: Apache-2.0
#include "core/arena/layout.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "absl/strings/str_format.h"

namespace maskkv::arena {
namespace {

struct Field {
  std::size_t offset, size;
  bool operator==(const Field&) const = default;
};

#define MASKKV_FIELD(record, field)                            \
  {                                                            \
#field, { offsetof(record, field), sizeof(record::field) } \
  }

const std::map<std::string, std::map<std::string, Field>> kFields = {
    {"header",
     {MASKKV_FIELD(EntryHeader, magic),
      MASKKV_FIELD(EntryHeader, format_version),
      MASKKV_FIELD(EntryHeader, header_bytes),
      MASKKV_FIELD(EntryHeader, layout_hash),
      MASKKV_FIELD(EntryHeader, header_checksum),
      MASKKV_FIELD(EntryHeader, epoch),
      MASKKV_FIELD(EntryHeader, entry_id),
      MASKKV_FIELD(EntryHeader, plan_generation),
      MASKKV_FIELD(EntryHeader, reserved0),
      MASKKV_FIELD(EntryHeader, layers),
      MASKKV_FIELD(EntryHeader, kv_heads),
      MASKKV_FIELD(EntryHeader, head_dim),
      MASKKV_FIELD(EntryHeader, dtype),
      MASKKV_FIELD(EntryHeader, total_bytes),
      MASKKV_FIELD(EntryHeader, pairs),
      MASKKV_FIELD(EntryHeader, prompt_tokens),
      MASKKV_FIELD(EntryHeader, document_tokens),
      MASKKV_FIELD(EntryHeader, masks),
      MASKKV_FIELD(EntryHeader, budget),
      MASKKV_FIELD(EntryHeader, kept_mass),
      MASKKV_FIELD(EntryHeader, extents),
      MASKKV_FIELD(EntryHeader, reserved1),
      MASKKV_FIELD(EntryHeader, extents_offset),
      MASKKV_FIELD(EntryHeader, heads_offset),
      MASKKV_FIELD(EntryHeader, payload_offset),
      MASKKV_FIELD(EntryHeader, tables_checksum),
      MASKKV_FIELD(EntryHeader, model_fingerprint),
      MASKKV_FIELD(EntryHeader, prompt_digest),
      MASKKV_FIELD(EntryHeader, document_digest),
      MASKKV_FIELD(EntryHeader, rope_scale),
      MASKKV_FIELD(EntryHeader, suffix_tokens),
      MASKKV_FIELD(EntryHeader, suffix_digest)}},
    {"extent",
     {MASKKV_FIELD(ExtentRecord, first_layer), MASKKV_FIELD(ExtentRecord, layers),
      MASKKV_FIELD(ExtentRecord, first_head), MASKKV_FIELD(ExtentRecord, heads),
      MASKKV_FIELD(ExtentRecord, shard), MASKKV_FIELD(ExtentRecord, shards),
      MASKKV_FIELD(ExtentRecord, offset), MASKKV_FIELD(ExtentRecord, bytes),
      MASKKV_FIELD(ExtentRecord, checksum)}},
    {"head",
     {MASKKV_FIELD(HeadRecord, keys), MASKKV_FIELD(HeadRecord, values),
      MASKKV_FIELD(HeadRecord, positions), MASKKV_FIELD(HeadRecord, pairs),
      MASKKV_FIELD(HeadRecord, scales)}}};

// The description's fields, in its own order.
struct DescribedField {
  std::string record, name;
  Field field;
};
std::vector<DescribedField> Described() {
  std::vector<DescribedField> fields;
  std::istringstream text{std::string(LayoutDescription())};
  for (std::string line; std::getline(text, line);) {
    DescribedField described;
    std::istringstream words(line);
    if (words >> described.record && kFields.contains(described.record) &&
        words >> described.field.offset >> described.field.size >> described.name) {
      fields.push_back(described);
    }
  }
  return fields;
}

TEST(Layout, TheDescriptionNamesEveryFieldWhereItLies) {
  std::map<std::string, std::map<std::string, Field>> described;
  std::map<std::string, std::size_t> end;
  for (const DescribedField& field : Described()) {
    described[field.record][field.name] = field.field;
    EXPECT_EQ(field.field.offset, end[field.record]) << field.name << ": a hole before it";
    end[field.record] += field.field.size;
  }
  EXPECT_EQ(described, kFields);
  EXPECT_EQ(end["header"], sizeof(EntryHeader));
  EXPECT_EQ(end["extent"], sizeof(ExtentRecord));
  EXPECT_EQ(end["head"], sizeof(HeadRecord));
}

TEST(Layout, TheDocumentNamesEveryFieldWhereItLies) {
  std::ifstream file(std::string(MASKKV_SOURCE_DIR) + "/docs/shm_format.md");
  std::stringstream content;
  content << file.rdbuf();
  const std::string document = content.str();
  for (const DescribedField& field : Described()) {
    const std::string row =
        absl::StrFormat("| %d | %d | `%s` |", field.field.offset, field.field.size, field.name);
    EXPECT_NE(document.find(row), std::string::npos) << field.record << ": " << row;
  }
  EXPECT_NE(document.find(absl::StrFormat("`%s`", LayoutHashText())), std::string::npos);
}

// A change of the bytes needs another description, and with it another hash here and in the
// document: peers of other versions are told apart by it.
TEST(Layout, HasThisHash) { EXPECT_EQ(LayoutHashText(), "bb96f3359f7e5399"); }

TEST(Layout, TablesAndPayloadStartAtMultiplesOf64) {
  const TableOffsets at = PlaceTables(3, 5);
  EXPECT_EQ(at.extents, 320U);
  EXPECT_EQ(at.heads, 512U);    // 320 + 3 * 48 = 464
  EXPECT_EQ(at.payload, 768U);  // 512 + 5 * 40 = 712
}

TEST(Layout, TheChecksumIsXxh3) {  // of no bytes, as xxhsum prints it
  EXPECT_EQ(Checksum({}), 0x2D06800538D394C2U);
}

}  // namespace
}  // namespace maskkv::arena
