// SPDX-License-Identifier: Apache-2.0
#include "core/model/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/model/checkpoint_files.h"

namespace maskkv::model::safetensors_test {
namespace {

using maskkv::testing::StatusIs;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

absl::StatusOr<SafetensorsContent> Parse(const std::string& bytes) {
  return ParseSafetensors(std::as_bytes(std::span(bytes)), "m.safetensors");
}

std::vector<FileTensor> TwoTensors() {
  return {MakeTensor("a", "F32", {2, 3}), MakeTensor("b", "BF16", {4})};
}

// The file of TwoTensors() with one member of tensor b's entry replaced.
std::string WithEntry(const std::string& member, const json& value) {
  const std::vector<FileTensor> tensors = TwoTensors();
  json header = HeaderOf(tensors);
  header["b"][member] = value;
  return SafetensorsBytes(header.dump(), tensors[0].data + tensors[1].data);
}

TEST(Safetensors, ReadsNamesTypesShapesAndBytes) {
  const std::string bytes = SafetensorsBytes(TwoTensors());
  MASKKV_ASSERT_OK_AND_ASSIGN(const SafetensorsContent content, Parse(bytes));
  ASSERT_EQ(content.tensors.size(), 2U);
  const TensorView& a = content.tensors[0];
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.type, TensorType::kF32);
  EXPECT_EQ(a.shape, (std::vector<std::int64_t>{2, 3}));
  ASSERT_EQ(a.data.size(), 24U);
  EXPECT_EQ(std::memcmp(a.data.data(), TwoTensors()[0].data.data(), 24), 0);
  EXPECT_EQ(content.tensors[1].type, TensorType::kBF16);
  EXPECT_EQ(content.tensors[1].data.data(), a.data.data() + 24);
}

TEST(Safetensors, OrderInTheHeaderIsNotOrderInTheFile) {
  const std::vector<FileTensor> tensors = {MakeTensor("z", "F32", {1}),
                                           MakeTensor("a", "F32", {2})};
  const std::string bytes = SafetensorsBytes(tensors);
  MASKKV_ASSERT_OK_AND_ASSIGN(const SafetensorsContent content, Parse(bytes));
  EXPECT_EQ(content.tensors[0].name, "a");
  EXPECT_GT(content.tensors[0].data.data(), content.tensors[1].data.data());
}

TEST(Safetensors, ScalarsAndEmptyTensorsAreTensors) {
  const std::string bytes = SafetensorsBytes(
      {MakeTensor("e", "F32", {0, 5}), MakeTensor("s", "F32", {}), MakeTensor("t", "BF16", {0})});
  MASKKV_ASSERT_OK_AND_ASSIGN(const SafetensorsContent content, Parse(bytes));
  EXPECT_TRUE(content.tensors[0].data.empty());
  EXPECT_EQ(content.tensors[1].data.size(), 4U);
}

TEST(Safetensors, EveryTruncationIsRefused) {
  const std::string bytes = SafetensorsBytes(TwoTensors());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THAT(Parse(bytes.substr(0, size)),
                StatusIs(kInvalid, AllOf(HasSubstr("m.safetensors: "), HasSubstr("expected"),
                                         HasSubstr("found"))))
        << size << " of " << bytes.size() << " bytes";
  }
}

TEST(Safetensors, BytesThatBelongToNoTensorAreRefused) {
  EXPECT_THAT(
      Parse(SafetensorsBytes(TwoTensors()) + "x"),
      StatusIs(kInvalid, HasSubstr("expected 32 bytes of tensors after the header, found 33")));
}

TEST(Safetensors, TheHeaderMustFitTheFile) {
  std::string bytes = SafetensorsBytes(TwoTensors());
  for (const std::uint64_t length : {UINT64_MAX, UINT64_MAX - 7, std::uint64_t{1} << 63,
                                     std::uint64_t{100'000'001}, std::uint64_t{bytes.size() - 7}}) {
    std::memcpy(bytes.data(), &length, sizeof(length));
    EXPECT_THAT(Parse(bytes), StatusIs(kInvalid, AllOf(HasSubstr("header length: expected at most"),
                                                       HasSubstr(std::to_string(length)))));
  }
}

TEST(Safetensors, TheHeaderMustBeAJsonObjectWithEachNameOnce) {
  for (const std::string header : {"", "[]", "null", "{\"a\": 1}", "{", "{}x", "{\"a\": {}}"}) {
    EXPECT_THAT(Parse(SafetensorsBytes(header, "")),
                StatusIs(kInvalid, HasSubstr("m.safetensors: ")))
        << header;
  }
  const std::string entry = R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  EXPECT_THAT(Parse(SafetensorsBytes("{\"a\":" + entry + ",\"a\":" + entry + "}", "x")),
              StatusIs(kInvalid, HasSubstr("field a: expected every key once, found it twice")));
  EXPECT_THAT(
      Parse(SafetensorsBytes(R"({"__metadata__": {"format": 1}})", "")),
      StatusIs(kInvalid, HasSubstr("__metadata__.format: expected a string, found number")));
}

TEST(Safetensors, EveryMemberOfAnEntryMustBeThereAndHaveItsType) {
  for (const std::string member : {"dtype", "shape", "data_offsets"}) {
    json header = HeaderOf(TwoTensors());
    header["b"].erase(member);
    EXPECT_THAT(Parse(SafetensorsBytes(header.dump(), std::string(32, 'x'))),
                StatusIs(kInvalid, HasSubstr("field b." + member + ": expected a value")));
    for (const json& wrong : {json(nullptr), json(7), json("F31"), json::object(), json({-1, 2}),
                              json({"a", "b"}), json({0.5, 1.5}), json({1, 2, 3})}) {
      EXPECT_THAT(Parse(WithEntry(member, wrong)),
                  StatusIs(kInvalid, AllOf(HasSubstr("field b."), HasSubstr(": expected "),
                                           HasSubstr("found "))))
          << member << " " << wrong;
    }
  }
}

TEST(Safetensors, AWrongTypeOrShapeDoesNotFitTheBytes) {
  EXPECT_THAT(Parse(WithEntry("dtype", "F32")),
              StatusIs(kInvalid, HasSubstr("field b.data_offsets: expected 16 bytes for F32 [4], "
                                           "found 8 bytes [24, 32]")));
  EXPECT_THAT(Parse(WithEntry("shape", {5})),
              StatusIs(kInvalid, HasSubstr("expected 10 bytes for BF16 [5], found 8 bytes")));
}

TEST(Safetensors, ShapesThatOverflowAreRefused) {
  for (const json& shape : {json({INT64_MAX}), json({std::int64_t{1} << 32, std::int64_t{1} << 31}),
                            json({3037000500, 3037000500}), json({65536, 65536, 65536, 65536})}) {
    EXPECT_THAT(Parse(WithEntry("shape", shape)),
                StatusIs(kInvalid, HasSubstr("field b.shape: expected a shape of fewer than 2^63")))
        << shape;
  }
  EXPECT_THAT(Parse(WithEntry("shape", {UINT64_MAX})),
              StatusIs(kInvalid, HasSubstr("field b.shape[0]: expected an integer >= 0")));
}

TEST(Safetensors, OffsetsMustLieInTheFileAndAscend) {
  EXPECT_THAT(
      Parse(WithEntry("data_offsets", {24, 40})),
      StatusIs(kInvalid, HasSubstr("field b.data_offsets: expected offsets up to the 32 "
                                   "bytes of data in the file (truncated?), found [24, 40]")));
  EXPECT_THAT(Parse(WithEntry("data_offsets", {32, 24})),
              StatusIs(kInvalid, HasSubstr("field b.data_offsets[1]: expected an integer >= 32")));
  EXPECT_THAT(Parse(WithEntry("data_offsets", {UINT64_MAX - 8, UINT64_MAX})),
              StatusIs(kInvalid, HasSubstr("field b.data_offsets[0]: expected an integer >= 0")));
  EXPECT_THAT(Parse(WithEntry("data_offsets", {INT64_MAX - 8, INT64_MAX})),
              StatusIs(kInvalid, HasSubstr("truncated?")));
}

TEST(Safetensors, TensorsMustTileTheDataWithoutOverlapOrGap) {
  EXPECT_THAT(
      Parse(WithEntry("data_offsets", {16, 24})),
      StatusIs(kInvalid, HasSubstr("field b.data_offsets: expected a start at 24, where the "
                                   "tensor before ends, found 16 (overlap)")));
  std::vector<FileTensor> tensors = TwoTensors();
  json header = HeaderOf(tensors);
  header["b"]["data_offsets"] = {28, 36};
  EXPECT_THAT(Parse(SafetensorsBytes(header.dump(), std::string(36, 'x'))),
              StatusIs(kInvalid, HasSubstr("found 28 (gap)")));
  header["b"]["data_offsets"] = {0, 8};
  EXPECT_THAT(Parse(SafetensorsBytes(header.dump(), std::string(24, 'x'))),
              StatusIs(kInvalid, HasSubstr("(overlap)")));
}

TEST(Safetensors, MisalignedTensorsAreRefused) {
  EXPECT_THAT(
      Parse(SafetensorsBytes({MakeTensor("a", "U8", {3}), MakeTensor("b", "F32", {2})})),
      StatusIs(kInvalid, AllOf(HasSubstr("field b.data_offsets: expected a start in the file "
                                         "that is a multiple of 4 (misaligned), found byte"))));
}

TEST(Safetensors, AnyChangedByteIsReadOrRefusedButNeverTrusted) {
  const std::string good = SafetensorsBytes(TwoTensors());
  std::mt19937_64 random(maskkv::testing::Seed());
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = good;
    for (int change = 0; change <= round % 3; ++change) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    const absl::StatusOr<SafetensorsContent> content = Parse(bytes);
    if (!content.ok()) continue;
    ++accepted;
    for (const TensorView& tensor : content->tensors) {
      ASSERT_GE(reinterpret_cast<const char*>(tensor.data.data()), bytes.data());
      ASSERT_LE(reinterpret_cast<const char*>(tensor.data.data() + tensor.data.size()),
                bytes.data() + bytes.size());
    }
  }
  EXPECT_GT(accepted, 0);
}

TEST(SafetensorsFile, ViewsStayValidWhenTheFileIsMoved) {
  const TemporaryFolder folder;
  const std::string path = folder.Write("m.safetensors", SafetensorsBytes(TwoTensors()));
  MASKKV_ASSERT_OK_AND_ASSIGN(SafetensorsFile file, SafetensorsFile::Open(path));
  const std::byte* const data = file.Find("b")->data.data();
  const SafetensorsFile moved = std::move(file);
  EXPECT_EQ(moved.Find("b")->data.data(), data);
  EXPECT_EQ(std::memcmp(data, TwoTensors()[1].data.data(), 8), 0);
  EXPECT_EQ(moved.Find("c"), nullptr);
}

TEST(SafetensorsFile, FilesThatCannotBeReadAreNamed) {
  const TemporaryFolder folder;
  EXPECT_THAT(
      SafetensorsFile::Open(folder.path() + "/none"),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("/none: expected a file, found none")));
  EXPECT_THAT(SafetensorsFile::Open(folder.path()),
              StatusIs(kInvalid, HasSubstr("expected a regular file")));
  EXPECT_THAT(SafetensorsFile::Open(folder.Write("empty", "")),
              StatusIs(kInvalid, HasSubstr("expected at least 8 bytes of header length, found 0")));
}

}  // namespace
}  // namespace maskkv::model::safetensors_test
