// SPDX-License-Identifier: Apache-2.0
#include "core/model/config.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/unit/core/model/checkpoint_files.h"

namespace maskkv::model::config_test {
namespace {

using maskkv::testing::IsOk;
using maskkv::testing::StatusIs;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

absl::StatusOr<ModelConfig> Parse(const json& config) {
  return ParseModelConfig(config.dump(), "config.json");
}

absl::StatusOr<ModelConfig> ParseWith(const std::string& field, const json& value) {
  json config = SmallConfig();
  config[field] = value;
  return Parse(config);
}

TEST(ModelConfig, ReadsEveryValueFromTheFile) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const ModelConfig config, Parse(SmallConfig()));
  EXPECT_EQ(config.family, ModelFamily::kLlada);
  EXPECT_EQ(config.model_type, "llada");
  EXPECT_EQ(config.hidden, 8);
  EXPECT_EQ(config.layers, 2);
  EXPECT_EQ(config.heads, 2);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_dim, 4);
  EXPECT_EQ(config.ffn, 12);
  EXPECT_EQ(config.vocab_rows, 10);
  EXPECT_EQ(config.max_sequence, 64);
  EXPECT_EQ(config.rope_theta, 500000.0);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_FALSE(config.tied_head);
  EXPECT_EQ(config.mask_id, 9);
  EXPECT_EQ(config.eos_id, 8);
  EXPECT_EQ(config.pad_id, 8);
  EXPECT_EQ(config.torch_dtype, "bfloat16");
}

TEST(ModelConfig, NullKvHeadsMeanOneForMultiQueryElseAsManyAsQueryHeads) {
  json config = SmallConfig();
  config["n_kv_heads"] = nullptr;
  EXPECT_EQ(Parse(config)->kv_heads, 2);
  config["multi_query_attention"] = false;
  EXPECT_EQ(Parse(config)->kv_heads, 2);
  config["multi_query_attention"] = true;
  EXPECT_EQ(Parse(config)->kv_heads, 1);
  config["n_kv_heads"] = 2;
  EXPECT_EQ(Parse(config)->kv_heads, 2);
}

TEST(ModelConfig, TheFfnWidthWinsOverTheRatio) {
  EXPECT_EQ(ParseWith("mlp_ratio", 3)->ffn, 12);
  json config = SmallConfig();
  config["mlp_hidden_size"] = nullptr;
  EXPECT_EQ(Parse(config)->ffn, 32);
  config["mlp_ratio"] = 1 << 20;
  EXPECT_THAT(Parse(config), StatusIs(kInvalid, HasSubstr("field mlp_ratio: expected")));
}

TEST(ModelConfig, TheEmbeddingMayHaveMoreRowsThanTheVocabulary) {
  EXPECT_EQ(ParseWith("embedding_size", nullptr)->vocab_rows, 10);
  EXPECT_EQ(ParseWith("embedding_size", 16)->vocab_rows, 16);
  EXPECT_EQ(ParseWith("embedding_size", 16)->vocab_size, 10);
  EXPECT_THAT(
      ParseWith("embedding_size", 9),
      StatusIs(kInvalid, HasSubstr("field embedding_size: expected an integer between 10")));
}

TEST(ModelConfig, EveryFieldThatIsUsedMustBeThere) {
  const json small = SmallConfig();
  for (const auto& [field, value] : small.items()) {
    // Needed only if another field is null; tensors carry their own type.
    if (field == "mlp_ratio" || field == "multi_query_attention" || field == "torch_dtype")
      continue;
    json config = small;
    config.erase(field);
    EXPECT_THAT(Parse(config),
                StatusIs(kInvalid, HasSubstr("config.json: field " + field + ": expected")));
  }
}

TEST(ModelConfig, EveryFieldThatIsUsedMustHaveItsType) {
  const json small = SmallConfig();
  for (const auto& [field, value] : small.items()) {
    for (const json& wrong : {json("12"), json::array({1}), json::object(), json(-1), json(1.5)}) {
      // A text is a type of another network for these; a negative number is one only for sizes.
      if (field == "mlp_ratio" || field == "multi_query_attention") continue;
      if (value.is_string() && wrong.is_string() && field == "torch_dtype") continue;
      if (field == "rope_theta" && wrong == json(1.5)) continue;
      EXPECT_THAT(ParseWith(field, wrong),
                  StatusIs(kInvalid, AllOf(HasSubstr("config.json: field " + field + ": expected"),
                                           HasSubstr("found"))))
          << wrong;
    }
  }
}

TEST(ModelConfig, OtherLayoutsAreRefused) {
  const std::vector<std::pair<std::string, json>> others = {{"block_type", "sequential"},
                                                            {"block_group_size", 2},
                                                            {"activation_type", "swiglu"},
                                                            {"layer_norm_type", "default"},
                                                            {"rope", false},
                                                            {"rope_full_precision", false},
                                                            {"alibi", true},
                                                            {"attention_layer_norm", true},
                                                            {"bias_for_layer_norm", true},
                                                            {"include_bias", true},
                                                            {"include_qkv_bias", true},
                                                            {"input_emb_norm", true},
                                                            {"scale_logits", true},
                                                            {"layer_norm_with_affine", false}};
  for (const auto& [field, value] : others) {
    EXPECT_THAT(ParseWith(field, value),
                StatusIs(kInvalid, AllOf(HasSubstr("field " + field + ": expected"),
                                         HasSubstr("the only layout supported, found"))));
  }
}

TEST(ModelConfig, OtherModelTypesAreRefusedNamingWhatIsSupported) {
  EXPECT_THAT(ParseWith("model_type", "llada2_moe"),
              StatusIs(kInvalid, HasSubstr("field model_type: expected \"llada\", \"lladamoe\" or "
                                           "\"Dream\", the model types supported, found string "
                                           "\"llada2_moe\"")));
}

TEST(ModelConfig, ShapesMustFitTogether) {
  EXPECT_THAT(ParseWith("n_heads", 3), StatusIs(kInvalid, HasSubstr("a divisor of n_heads = 3")));
  EXPECT_THAT(ParseWith("n_kv_heads", 4),
              StatusIs(kInvalid, HasSubstr("a divisor of n_heads = 2")));
  EXPECT_THAT(ParseWith("d_model", 9), StatusIs(kInvalid, HasSubstr("a divisor of d_model = 9")));
  EXPECT_THAT(ParseWith("d_model", 6),
              StatusIs(kInvalid, HasSubstr("field n_heads: expected an even d_model / n_heads")));
}

TEST(ModelConfig, SizesBeyondTheLimitsAreRefused) {
  for (const std::string field : {"d_model", "n_layers", "n_heads", "n_kv_heads", "mlp_hidden_size",
                                  "vocab_size", "embedding_size", "max_sequence_length"}) {
    for (const json& size :
         {json(0), json(std::int64_t{1} << 40), json(INT64_MAX), json(UINT64_MAX)}) {
      EXPECT_THAT(ParseWith(field, size),
                  StatusIs(kInvalid, HasSubstr("field " + field + ": expected an integer between")))
          << size;
    }
  }
}

TEST(ModelConfig, IdsMustBeRowsOfTheVocabulary) {
  for (const std::string field : {"mask_token_id", "eos_token_id", "pad_token_id"}) {
    EXPECT_THAT(ParseWith(field, 10),
                StatusIs(kInvalid, HasSubstr("field " + field +
                                             ": expected an integer between 0 and 9, found number "
                                             "10")));
  }
  EXPECT_THAT(ParseWith("mask_token_id", 8),
              StatusIs(kInvalid, HasSubstr("another id than eos_token_id = 8")));
}

TEST(ModelConfig, NumbersMustBeInRange) {
  for (const json& theta : {json(0), json(1), json(-2.0), json(1e300), json("x")}) {
    EXPECT_THAT(ParseWith("rope_theta", theta), StatusIs(kInvalid, HasSubstr("field rope_theta")));
  }
  for (const json& eps : {json(0), json(1.0), json(-1e-5)}) {
    EXPECT_THAT(ParseWith("rms_norm_eps", eps), StatusIs(kInvalid, HasSubstr("rms_norm_eps")));
  }
  EXPECT_THAT(ParseWith("rope_theta", 10000), IsOk());
}

TEST(ModelConfig, FilesThatCannotBeReadAreNamed) {
  const TemporaryFolder folder;
  EXPECT_THAT(LoadModelConfig(folder.path() + "/config.json"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/config.json: ")));
  EXPECT_THAT(LoadModelConfig(folder.path()), StatusIs(kInvalid, HasSubstr("a regular file")));
  const std::string large = folder.Write("large.json", std::string((1 << 20) + 1, ' '));
  EXPECT_THAT(LoadModelConfig(large), StatusIs(kInvalid, HasSubstr("expected at most 1048576")));
  const std::string empty = folder.Write("empty.json", "");
  EXPECT_THAT(LoadModelConfig(empty), StatusIs(kInvalid, HasSubstr("empty.json: not valid JSON")));
}

}  // namespace
}  // namespace maskkv::model::config_test
