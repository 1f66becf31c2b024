// SPDX-License-Identifier: Apache-2.0
#include "services/common/model_runtime.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <string>

#include "core/base/error.h"
#include "maskkv/v1/common.pb.h"
#include "services/common/prompt_text.h"
#include "tests/support/status_matchers.h"

namespace maskkv::services {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Folder(const std::string& path) { return MASKKV_SOURCE_DIR "/" + path; }

// Loaded once: packing takes a moment.
const ModelRuntime& Loaded(const std::string& path) {
  static auto& models = *new std::map<std::string, std::shared_ptr<const ModelRuntime>>();
  std::shared_ptr<const ModelRuntime>& model = models[path];
  if (model == nullptr) {
    const auto loaded =
        ModelRuntime::Load({.directory = Folder(path), .placement = {.threads = 1}});
    EXPECT_THAT(loaded, testing::IsOk());
    model = loaded.value();
  }
  return *model;
}
const ModelRuntime& Tiny() { return Loaded("models/tiny-llada"); }
const ModelRuntime& WithoutTokenizer() { return Loaded("tests/data/golden/checkpoints/mha"); }

PromptIds Document(const std::string& document, const std::string& question) {
  v1::Prompt prompt;
  prompt.mutable_document()->set_document(document);
  prompt.mutable_document()->set_question(question);
  const absl::StatusOr<PromptIds> ids = Tiny().Tokenize(prompt);
  EXPECT_THAT(ids, testing::IsOk());
  return ids.value_or(PromptIds{});
}

std::string ReasonOf(const ModelRuntime& model, const v1::Prompt& prompt) {
  return ErrorReason(model.Tokenize(prompt).status());
}

TEST(ModelRuntimeTest, SaysWhatItLoaded) {
  const ModelRuntime& model = Tiny();
  EXPECT_EQ(model.name(), "tiny-llada");
  EXPECT_EQ(model.fingerprint(), model.weights().checkpoint().Fingerprint());
  EXPECT_EQ(model.fingerprint().size(), 64U);
  EXPECT_EQ(model.fingerprint_digest()[0],
            static_cast<std::byte>(std::stoi(model.fingerprint().substr(0, 2), nullptr, 16)));
  EXPECT_EQ(model.max_positions(), kLongestDefault);
  EXPECT_EQ(model.stop_ids().front(), model.config().eos_id);
  ASSERT_NE(model.profile(), nullptr);
  EXPECT_EQ(static_cast<std::int64_t>(model.profile()->importance.size()), model.config().layers);
  ASSERT_NE(model.tokenizer(), nullptr);
}

TEST(ModelRuntimeTest, ADocumentIsTheChatOfDocumentAndQuestion) {
  v1::Prompt chat;
  v1::Message& message = *chat.mutable_chat()->add_messages();
  message.set_role("user");
  message.set_content("Ann lives in Lyon.\n\nWhere does Ann live?");
  const PromptIds ids = Document("Ann lives in Lyon.\n\r\n", "Where does Ann live?");
  EXPECT_EQ(Tiny().Tokenize(chat)->ids, ids.ids);
  EXPECT_EQ(Tiny().Tokenize(chat)->document_tokens, 0);
}

TEST(ModelRuntimeTest, TheDocumentsTokensAreTheSameWhateverTheQuestion) {
  for (const std::string document :
       {"Ann lives in Lyon.", "Ann lives in Lyon", "  Ann\n\n  lives in Lyon?!  ", "1 2 3", "",
        "\xe6\xbc\xa2\xe5\xad\x97", "ends in tab\t"}) {
    const PromptIds first = Document(document, "Where does Ann live?");
    for (const std::string question : {"", "a", "Who?", "\n\nWho?", " Who?", "\tx", "42", "...",
                                       "'s", "\r\n", "\xcc\x81", "\xe6\xbc\xa2"}) {
      const PromptIds other = Document(document, question);
      ASSERT_EQ(other.document_tokens, first.document_tokens)
          << "document '" << document << "' question '" << question << "'";
      EXPECT_TRUE(std::equal(first.ids.begin(), first.ids.begin() + first.document_tokens,
                             other.ids.begin()));
    }
  }
}

TEST(ModelRuntimeTest, NearlyAllOfALongDocumentIsCommon) {
  std::string document;
  for (int i = 0; i < 200; ++i) document += "Ann lives in Lyon. ";
  const PromptIds with = Document(document, "Where does Ann live?");
  const PromptIds alone = Document(document, "");
  EXPECT_GT(with.document_tokens, static_cast<std::int64_t>(alone.ids.size()) - 12);
}

TEST(ModelRuntimeTest, TokenIdsAreUsedAsTheyAre) {
  v1::Prompt prompt;
  for (const int id : {5, 6, 7}) prompt.mutable_tokens()->add_ids(id);
  prompt.mutable_tokens()->set_document_tokens(2);
  for (const ModelRuntime* model : {&Tiny(), &WithoutTokenizer()}) {
    const absl::StatusOr<PromptIds> ids = model->Tokenize(prompt);
    ASSERT_THAT(ids, testing::IsOk());
    EXPECT_THAT(ids->ids, ElementsAre(5, 6, 7));
    EXPECT_EQ(ids->document_tokens, 2);
  }
}

TEST(ModelRuntimeTest, PromptsThatCannotBeComputedAreRefusedWithAReason) {
  const ModelRuntime& model = Tiny();
  v1::Prompt prompt;
  EXPECT_EQ(ReasonOf(model, prompt), "BAD_PROMPT");
  prompt.mutable_chat();
  EXPECT_EQ(ReasonOf(model, prompt), "BAD_PROMPT");
  prompt.mutable_chat()->add_messages()->set_role("robot");
  EXPECT_EQ(ReasonOf(model, prompt), "BAD_PROMPT");
  prompt.mutable_chat()->mutable_messages(0)->set_role("user");
  prompt.mutable_chat()->mutable_messages(0)->set_content("\xff");
  EXPECT_EQ(ReasonOf(model, prompt), "BAD_UTF8");
  prompt.mutable_document()->set_document("\xc3");
  EXPECT_EQ(ReasonOf(model, prompt), "BAD_UTF8");
  prompt.mutable_tokens()->add_ids(model.config().mask_id);
  EXPECT_EQ(ReasonOf(model, prompt), "MASK_IN_PROMPT");
  prompt.mutable_tokens()->set_ids(0, -1);
  EXPECT_EQ(ReasonOf(model, prompt), "TOKEN_OUT_OF_RANGE");
  prompt.mutable_tokens()->set_ids(0, static_cast<std::int32_t>(model.config().vocab_rows));
  EXPECT_EQ(ReasonOf(model, prompt), "TOKEN_OUT_OF_RANGE");
  prompt.mutable_tokens()->set_ids(0, 0);
  prompt.mutable_tokens()->set_document_tokens(2);
  EXPECT_EQ(ReasonOf(model, prompt), "BAD_PROMPT");
  prompt.mutable_document()->set_document("text");
  EXPECT_EQ(ReasonOf(WithoutTokenizer(), prompt), "NO_TOKENIZER");
}

TEST(ModelRuntimeTest, TextAndSuffixAreTokenisedWithoutATemplate) {
  v1::Prompt prompt;
  prompt.set_text("Ann lives in Lyon.<|eot_id|>");
  prompt.mutable_suffix()->set_text(" Who?");
  const absl::StatusOr<PromptIds> ids = Tiny().Tokenize(prompt);
  ASSERT_THAT(ids, testing::IsOk());
  EXPECT_EQ(Tiny().tokenizer()->Decode(ids->ids, /*skip_special=*/true),
            "Ann lives in Lyon.<|eot_id|>");
  EXPECT_EQ(Tiny().tokenizer()->Decode(ids->suffix, /*skip_special=*/true), " Who?");
  EXPECT_EQ(ids->tokens(), std::ssize(ids->ids) + std::ssize(ids->suffix));
  EXPECT_EQ(ReasonOf(WithoutTokenizer(), prompt), "NO_TOKENIZER");
  prompt.mutable_suffix()->mutable_tokens()->add_ids(-1);
  EXPECT_EQ(ReasonOf(Tiny(), prompt), "TOKEN_OUT_OF_RANGE");
  prompt.mutable_suffix()->set_text("");
  EXPECT_EQ(ReasonOf(Tiny(), prompt), "BAD_PROMPT");
}

TEST(ModelRuntimeTest, ACanvasIsMasksBetweenGivenTokens) {
  const std::int32_t mask = Tiny().config().mask_id;
  v1::Canvas canvas;
  const auto reason = [&](std::int64_t most) {
    return ErrorReason(Tiny().TokenizeCanvas(canvas, most).status());
  };
  EXPECT_EQ(reason(8), "BAD_CANVAS");
  canvas.add_pieces()->set_masks(2);
  canvas.add_pieces()->mutable_tokens()->add_ids(5);
  canvas.add_pieces()->set_masks(1);
  EXPECT_THAT(*Tiny().TokenizeCanvas(canvas, 4), ElementsAre(mask, mask, 5, mask));
  EXPECT_EQ(reason(3), "BAD_CANVAS");
  canvas.mutable_pieces(1)->mutable_tokens()->set_ids(0, mask);
  EXPECT_EQ(reason(4), "MASK_IN_PROMPT");
  canvas.mutable_pieces(1)->set_text("\xff");
  EXPECT_EQ(reason(4), "BAD_UTF8");
  canvas.mutable_pieces(1)->set_text("");
  EXPECT_EQ(reason(4), "BAD_CANVAS");
  canvas.mutable_pieces(1)->set_masks(-1);
  EXPECT_EQ(reason(4), "BAD_CANVAS");
  canvas.mutable_pieces(1)->set_masks(std::numeric_limits<std::int32_t>::max());
  EXPECT_EQ(reason(4), "BAD_CANVAS");
}

TEST(ModelRuntimeTest, LengthsAreBoundedByThePositions) {
  const ModelRuntime& model = WithoutTokenizer();
  const std::int64_t most = model.max_positions();
  EXPECT_THAT(model.CheckLength(most - 1, 1), testing::IsOk());
  EXPECT_EQ(ErrorReason(model.CheckLength(most, 1)), "PROMPT_TOO_LONG");
  EXPECT_EQ(ErrorReason(model.CheckLength(0, most + 1)), "PROMPT_TOO_LONG");
  EXPECT_EQ(ErrorReason(model.CheckLength(std::int64_t{1} << 62, std::int64_t{1} << 62)),
            "PROMPT_TOO_LONG");
  EXPECT_EQ(ErrorReason(model.CheckLength(1, 0)), "BAD_MASKS");
  EXPECT_EQ(ErrorReason(model.CheckLength(1, -1)), "BAD_MASKS");
}

TEST(ModelRuntimeTest, WhatCannotBeLoadedIsRefused) {
  const std::string mha = Folder("tests/data/golden/checkpoints/mha");
  EXPECT_THAT(ModelRuntime::Load(
                  {.directory = mha, .placement = {.threads = 1}, .max_positions = (1 << 24) + 1}),
              testing::StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("max_positions")));
  EXPECT_THAT(ModelRuntime::Load(
                  {.directory = mha, .placement = {.threads = 1}, .profile = mha + "/none.json"}),
              testing::StatusIs(absl::StatusCode::kNotFound, HasSubstr("none.json")));
  EXPECT_THAT(
      ModelRuntime::Load({.directory = mha,
                          .placement = {.threads = 1},
                          .profile = Folder("models/tiny-llada/maskkv_profile.json")}),
      testing::StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("model_fingerprint")));
  EXPECT_EQ(WithoutTokenizer().profile(), nullptr);
}

TEST(ModelRuntimeTest, ProvenanceNamesModelTypeAndBuild) {
  v1::Provenance provenance;
  Tiny().FillProvenance(provenance);
  EXPECT_EQ(provenance.model_fingerprint(), Tiny().fingerprint());
  EXPECT_EQ(provenance.dtype(), "f32");
  EXPECT_FALSE(provenance.isa().empty());
  EXPECT_FALSE(provenance.build().empty());
}

}  // namespace
}  // namespace maskkv::services
