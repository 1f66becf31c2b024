// SPDX-License-Identifier: Apache-2.0
#include "core/model/checkpoint.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "core/model/shard_index.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/model/checkpoint_files.h"

namespace maskkv::model::checkpoint_test {
namespace {

using maskkv::testing::IsOk;
using maskkv::testing::StatusIs;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr char kGate[] = "model.transformer.blocks.1.ff_proj.weight";
constexpr char kHead[] = "model.transformer.ff_out.weight";

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() { folder_.Write("config.json", SmallConfig().dump()); }

  absl::StatusOr<Checkpoint> OpenWith(const std::vector<FileTensor>& tensors) {
    folder_.Write("model.safetensors", SafetensorsBytes(tensors));
    return Checkpoint::Open(folder_.path());
  }

  // Two files, the embedding and block 0 in the first, and their index.
  json WriteShards() {
    const std::vector<FileTensor> tensors = SmallTensors();
    std::vector<FileTensor> parts[2];
    json map = json::object();
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const bool second = i >= 10;
      parts[second ? 1 : 0].push_back(tensors[i]);
      map[tensors[i].name] = second ? "model-2.safetensors" : "model-1.safetensors";
    }
    folder_.Write("model-1.safetensors", SafetensorsBytes(parts[0]));
    folder_.Write("model-2.safetensors", SafetensorsBytes(parts[1]));
    return {{"metadata", {{"total_size", 1}}}, {"weight_map", map}};
  }
  absl::StatusOr<Checkpoint> OpenIndex(const json& index) {
    folder_.Write("model.safetensors.index.json", index.dump());
    return Checkpoint::Open(folder_.path());
  }

  TemporaryFolder folder_;
};

TEST_F(CheckpointTest, GivesEveryTensorOfTheModel) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const Checkpoint checkpoint, OpenWith(SmallTensors()));
  EXPECT_EQ(checkpoint.config().hidden, 8);
  EXPECT_EQ(checkpoint.tensors().blocks.size(), 2U);
  MASKKV_ASSERT_OK_AND_ASSIGN(const Weight gate,
                              checkpoint.Tensor(checkpoint.tensors().blocks[1].gate));
  EXPECT_EQ(gate.dtype, kernels::DType::kBF16);
  EXPECT_EQ(gate.shape, (std::vector<std::int64_t>{12, 8}));
  EXPECT_EQ(std::memcmp(gate.data, MakeTensor(kGate, "BF16", {12, 8}).data.data(), 192), 0);
  EXPECT_EQ(checkpoint.Fingerprint().size(), 64U);
}

TEST_F(CheckpointTest, DownProjectionAndHeadAreToldApart) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const Checkpoint checkpoint, OpenWith(SmallTensors()));
  EXPECT_EQ(checkpoint.tensors().blocks[0].down.name, "model.transformer.blocks.0.ff_out.weight");
  EXPECT_EQ(checkpoint.tensors().blocks[0].down.shape, (std::vector<std::int64_t>{8, 12}));
  EXPECT_EQ(checkpoint.tensors().head.name, kHead);
  EXPECT_EQ(checkpoint.tensors().head.shape, (std::vector<std::int64_t>{10, 8}));
}

TEST_F(CheckpointTest, MissingTensorsAreListed) {
  std::vector<FileTensor> tensors = SmallTensors();
  tensors.erase(tensors.begin() + 3);
  tensors.pop_back();
  EXPECT_THAT(OpenWith(tensors),
              StatusIs(kInvalid, AllOf(HasSubstr("expected no missing tensors, found 2: "
                                                 "model.transformer.blocks.0.k_proj.weight, "),
                                       HasSubstr(kHead))));
  tensors.resize(4);
  EXPECT_THAT(OpenWith(tensors), StatusIs(kInvalid, HasSubstr(", ...")));
}

TEST_F(CheckpointTest, UnknownTensorsAreRefused) {
  std::vector<FileTensor> tensors = SmallTensors();
  tensors.push_back(MakeTensor("model.transformer.blocks.0.q_proj.bias", "BF16", {8}));
  EXPECT_THAT(OpenWith(tensors),
              StatusIs(kInvalid, HasSubstr("expected no tensors besides those of model_type llada, "
                                           "found 1: model.transformer.blocks.0.q_proj.bias")));
}

TEST_F(CheckpointTest, EveryTensorMustHaveItsShapeAndAType) {
  for (std::size_t i = 0; i < SmallTensors().size(); ++i) {
    std::vector<FileTensor> tensors = SmallTensors();
    const std::string name = tensors[i].name;
    std::vector<std::int64_t> shape = tensors[i].shape;
    shape.back() += 2;
    tensors[i] = MakeTensor(name, "BF16", shape);
    EXPECT_THAT(OpenWith(tensors),
                StatusIs(kInvalid, AllOf(HasSubstr("model.safetensors: tensor " + name +
                                                   ": expected shape ["),
                                         HasSubstr("found " + ShapeText(shape)))));
    tensors[i] = MakeTensor(name, "F16", SmallTensors()[i].shape);
    EXPECT_THAT(OpenWith(tensors),
                StatusIs(kInvalid,
                         HasSubstr("tensor " + name + ": expected dtype F32 or BF16, found F16")));
  }
}

TEST_F(CheckpointTest, FloatsOfBothWidthsMayBeMixed) {
  std::vector<FileTensor> tensors = SmallTensors();
  tensors[0] = MakeTensor(tensors[0].name, "F32", tensors[0].shape);
  MASKKV_ASSERT_OK_AND_ASSIGN(const Checkpoint checkpoint, OpenWith(tensors));
  EXPECT_EQ(checkpoint.Tensor(checkpoint.tensors().embedding)->dtype, kernels::DType::kF32);
}

TEST_F(CheckpointTest, ATensorIsAskedForByNameAndShape) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const Checkpoint checkpoint, OpenWith(SmallTensors()));
  EXPECT_THAT(checkpoint.Tensor("nothing", {}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("expected a tensor nothing")));
  const std::vector<std::int64_t> shape = {8, 12};
  EXPECT_THAT(checkpoint.Tensor(kGate, shape),
              StatusIs(kInvalid, HasSubstr("expected shape [8, 12], found [12, 8]")));
}

TEST_F(CheckpointTest, ATiedHeadIsTheEmbedding) {
  json config = SmallConfig();
  config["weight_tying"] = true;
  folder_.Write("config.json", config.dump());
  std::vector<FileTensor> tensors = SmallTensors(/*tied=*/true);
  MASKKV_ASSERT_OK_AND_ASSIGN(const Checkpoint checkpoint, OpenWith(tensors));
  EXPECT_EQ(checkpoint.tensors().head.name, checkpoint.tensors().embedding.name);

  FileTensor copy = tensors.front();
  copy.name = kHead;
  tensors.push_back(copy);
  EXPECT_THAT(OpenWith(tensors), IsOk());
  tensors.back().data.back() ^= 1;
  EXPECT_THAT(
      OpenWith(tensors),
      StatusIs(kInvalid, HasSubstr("tensor model.transformer.ff_out.weight: expected a copy "
                                   "of model.transformer.wte.weight")));
}

TEST_F(CheckpointTest, ShardsAreOneModel) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const Checkpoint checkpoint, OpenIndex(WriteShards()));
  EXPECT_EQ(checkpoint.files().size(), 2U);
  MASKKV_ASSERT_OK_AND_ASSIGN(const Weight gate,
                              checkpoint.Tensor(checkpoint.tensors().blocks[1].gate));
  EXPECT_EQ(std::memcmp(gate.data, MakeTensor(kGate, "BF16", {12, 8}).data.data(), 192), 0);
}

TEST_F(CheckpointTest, TheIndexMustNameExistingFiles) {
  const json index = WriteShards();
  folder_.Remove("model-2.safetensors");
  EXPECT_THAT(OpenIndex(index), StatusIs(absl::StatusCode::kNotFound,
                                         HasSubstr("model-2.safetensors: expected a file")));
}

TEST_F(CheckpointTest, TheIndexAndTheFilesMustAgree) {
  json index = WriteShards();
  index["weight_map"][kGate] = "model-1.safetensors";
  EXPECT_THAT(OpenIndex(index),
              StatusIs(kInvalid, HasSubstr("field weight_map." + std::string(kGate) +
                                           ": expected a tensor of model-1.safetensors, found no "
                                           "such tensor in that file")));
  index["weight_map"].erase(kGate);
  EXPECT_THAT(OpenIndex(index),
              StatusIs(kInvalid, HasSubstr("expected an entry for each tensor of "
                                           "model-2.safetensors, found no such field")));
}

TEST_F(CheckpointTest, ATensorInTwoFilesIsRefused) {
  const json index = WriteShards();
  std::vector<FileTensor> first = SmallTensors();
  first.resize(11);  // the eleventh is the second file's
  folder_.Write("model-1.safetensors", SafetensorsBytes(first));
  EXPECT_THAT(OpenIndex(index),
              StatusIs(kInvalid, AllOf(HasSubstr("model-1.safetensors: tensor " + first[10].name),
                                       HasSubstr("expected it in model-2.safetensors alone"),
                                       HasSubstr("found it here too"))));
}

TEST_F(CheckpointTest, ASingleFileBesideAnIndexIsRefused) {
  folder_.Write("model.safetensors", SafetensorsBytes(SmallTensors()));
  EXPECT_THAT(OpenIndex(WriteShards()),
              StatusIs(kInvalid, HasSubstr("expected model.safetensors or "
                                           "model.safetensors.index.json, found both")));
}

TEST_F(CheckpointTest, MissingFilesAreNamed) {
  EXPECT_THAT(Checkpoint::Open(folder_.path()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/model.safetensors: ")));
  folder_.Remove("config.json");
  EXPECT_THAT(Checkpoint::Open(folder_.path()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/config.json: ")));
}

TEST_F(CheckpointTest, TheFingerprintTellsModelsApartAndNothingElse) {
  const auto fingerprint = [this](const std::vector<FileTensor>& tensors) {
    return OpenWith(tensors)->Fingerprint();
  };
  std::set<std::string> seen;
  const std::string original = fingerprint(SmallTensors());
  EXPECT_EQ(fingerprint(SmallTensors()), original);
  seen.insert(original);
  for (std::size_t i = 0; i < SmallTensors().size(); ++i) {
    std::vector<FileTensor> tensors = SmallTensors();
    tensors[i].data[0] ^= 1;
    EXPECT_TRUE(seen.insert(fingerprint(tensors)).second) << tensors[i].name;
  }
  folder_.Write("tokenizer.json", "{}");
  EXPECT_TRUE(seen.insert(fingerprint(SmallTensors())).second);
  json config = SmallConfig();
  config["rope_theta"] = 10000.0;
  folder_.Write("config.json", config.dump());
  EXPECT_TRUE(seen.insert(fingerprint(SmallTensors())).second);
}

TEST(ShardIndex, NamesThatLeadOutOfTheDirectoryAreRefused) {
  for (const std::string name :
       {"../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".safetensors", "",
        "a\\b.safetensors", "model.bin", "model.safetensors/..", "a\nb.safetensors"}) {
    const json index = {{"weight_map", {{"t", name}}}};
    EXPECT_THAT(ParseShardIndex(index.dump(), "i.json"),
                StatusIs(kInvalid, HasSubstr("i.json: field weight_map.t: expected the name of a "
                                             ".safetensors file in the same directory, found")));
  }
}

TEST(ShardIndex, EveryFieldIsChecked) {
  for (const std::string text :
       {"[]", "{}", R"({"weight_map": []})", R"({"weight_map": {}})", R"({"weight_map": {"t": 1}})",
        R"({"metadata": {"total_size": "x"}, "weight_map": {"t": "a.safetensors"}})",
        R"({"metadata": {"total_size": -1}, "weight_map": {"t": "a.safetensors"}})",
        R"({"weight_map": {"t": "a.safetensors", "t": "b.safetensors"}})"}) {
    EXPECT_THAT(
        ParseShardIndex(text, "i.json"),
        StatusIs(kInvalid, AllOf(HasSubstr("i.json: "), HasSubstr("expected"), HasSubstr("found"))))
        << text;
  }
  EXPECT_THAT(ParseShardIndex(R"({"weight_map": {"t": "a.safetensors"}})", "i.json"), IsOk());
}

TEST(EmbeddedModel, Opens) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const Checkpoint checkpoint,
                              Checkpoint::Open(MASKKV_SOURCE_DIR "/models/tiny-llada"));
  EXPECT_EQ(checkpoint.config().family, ModelFamily::kLlada);
  for (const TensorSpec& spec : ListTensors(checkpoint.tensors())) {
    EXPECT_THAT(checkpoint.Tensor(spec), IsOk());
  }
}

}  // namespace
}  // namespace maskkv::model::checkpoint_test
