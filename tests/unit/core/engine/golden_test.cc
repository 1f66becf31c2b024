// SPDX-License-Identifier: Apache-2.0
//
// The engine in f32 against the float64 NumPy oracle. Values must lie within the oracle's derived
// bounds; decisions (kept positions, committed tokens) must be equal wherever the oracle's margin
// exceeds them, and the others are counted and printed.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "core/engine/decode.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/engine/prefix_view.h"
#include "tests/support/closeness.h"
#include "tests/unit/core/engine/golden_case.h"
#include "tests/unit/core/engine/golden_file.h"

namespace maskkv::engine::golden_test {
namespace {

using maskkv::testing::AllWithin;

constexpr int kThreads = 2;

// Copies the logits it sees into a matrix: tag is the row.
class CopyReducer : public kernels::LogitReducer {
 public:
  CopyReducer(std::int64_t rows, std::int64_t columns)
      : columns_(columns), logits_(static_cast<std::size_t>(rows * columns)) {}
  std::size_t state_bytes() const override { return 8; }
  void Init(void*) const override {}
  void Consume(std::int64_t row, std::int32_t first, std::span<float> logits,
               void*) const override {
    std::copy(logits.begin(), logits.end(), logits_.begin() + row * columns_ + first);
  }
  void Merge(const void*, void*) const override {}
  std::span<const float> logits() const { return logits_; }

 private:
  const std::int64_t columns_;
  mutable std::vector<float> logits_;  // elements are written by one worker each
};

class GoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  GoldenTest()
      : golden_(GetParam()),
        model_(golden_.model_directory(), kernels::DType::kF32, kThreads, golden_.positions()) {}

  std::int64_t layers() const { return model_.weights.config().layers; }
  std::int64_t kv_heads() const { return model_.weights.config().kv_heads; }
  // The row that predicts a position is so many before it.
  std::int64_t shift() const { return model_.weights.config().shifted_logits ? 1 : 0; }
  std::vector<Row> Rows() const {
    if (!golden_.params.whole_canvas) {
      return PromptThenMasks(golden_.prompt, golden_.params.gen_length, model_.weights.config());
    }
    std::vector<std::int32_t> canvas = golden_.canvas;
    canvas.resize(static_cast<std::size_t>(golden_.params.gen_length),
                  model_.weights.config().mask_id);
    return PromptThenResponse(golden_.prompt, canvas, model_.weights.config(), golden_.suffix);
  }
  // Positions whose pairs may be kept.
  std::vector<std::int32_t> Candidates() const {
    std::vector<std::int32_t> positions;
    for (const Row& row : Rows()) {
      if (row.role == Role::kPrompt) positions.push_back(row.position);
    }
    return positions;
  }

  GoldenCase golden_;
  TestModel model_;
};

TEST_P(GoldenTest, HiddenStatesAndLogitsOfTheUncachedCanvasLieWithinTheBound) {
  transformer::Transformer& transformer = model_.transformer;
  const std::vector<Row> rows = Rows();
  const auto count = static_cast<std::int64_t>(rows.size());
  const std::int64_t width = transformer.hidden();
  std::vector<std::int32_t> tokens, positions;
  for (const Row& row : rows) {
    tokens.push_back(row.token);
    positions.push_back(row.position);
  }
  std::vector<float> hidden(static_cast<std::size_t>(count * width));
  std::vector<float> kv(static_cast<std::size_t>(count * 2 * transformer.kv_width()));
  transformer.Embed(tokens, hidden.data());
  const auto rope = transformer.Rope(1, transformer.max_positions());
  const transformer::RopeRun run{count, rope.get()};
  std::span<const float> expected;  // to keep the files small, few cases hold hidden states
  if (golden_.Has("hidden")) expected = golden_.Tensor("hidden");
  for (std::int64_t layer = 0; layer < layers(); ++layer) {
    transformer.ProjectKeysValues(layer, hidden.data(), count, positions.data(), {&run, 1},
                                  kv.data());
    transformer::AttentionSource source;
    source.rows = count;
    source.rope = rope.get();
    source.keys = kv.data();
    source.values = kv.data() + transformer.kv_width();
    source.ldkv = 2 * transformer.kv_width();
    source.own_rows = count;
    transformer.Advance(layer, hidden.data(), count, positions.data(), {&source, 1});
    if (expected.empty()) continue;
    const double bound = golden_.json.at("bounds").at("hidden").at(static_cast<std::size_t>(layer));
    EXPECT_TRUE(
        AllWithin(std::span<const float>(hidden),
                  expected.subspan(static_cast<std::size_t>(layer) * hidden.size(), hidden.size()),
                  [&](std::size_t) { return bound; }))
        << "layer " << layer;
  }
  const std::int64_t masks = golden_.params.gen_length;
  const std::int64_t vocabulary = model_.weights.config().vocab_rows;
  std::vector<float> normed(static_cast<std::size_t>(masks * width));
  transformer.FinalNorm(hidden.data() + (count - masks - shift()) * width, masks, normed.data());
  const CopyReducer reducer(masks, vocabulary);
  std::vector<kernels::HeadRow> head_rows;
  std::vector<std::uint64_t> states(static_cast<std::size_t>(masks));
  for (std::int64_t row = 0; row < masks; ++row) {
    head_rows.push_back(
        {normed.data() + row * width, &reducer, row, &states[static_cast<std::size_t>(row)]});
  }
  transformer.Project(head_rows);
  EXPECT_TRUE(AllWithin(reducer.logits(), golden_.Tensor("logits"),
                        [&](std::size_t) { return golden_.Bound("logits"); }));
}

TEST_P(GoldenTest, ImportanceScoresAndMassesLieWithinTheirBounds) {
  const std::vector<Row> rows = Rows();
  Prefiller prefiller(model_.transformer);
  const auto importance = prefiller.MeasureImportance(rows);
  ASSERT_TRUE(importance.ok()) << importance.status();
  if (!golden_.json.at("prefill").is_null()) {
    const auto expected = golden_.json.at("prefill").at("importance").get<std::vector<double>>();
    ASSERT_EQ(importance->size(), expected.size());
    for (std::size_t layer = 0; layer < expected.size(); ++layer) {
      EXPECT_NEAR((*importance)[layer], expected[layer], golden_.Bound("importance"))
          << "layer " << layer;
    }
  }
  PrefillRequest request;
  request.rows = rows;
  request.plan = golden_.plan;
  std::vector<float> scores;
  request.on_scores = [&](std::int64_t, std::span<const float> layer) {
    scores.insert(scores.end(), layer.begin(), layer.end());
  };
  HeapKvEntry entry;
  const auto result = prefiller.Run(request, entry);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(AllWithin(std::span<const float>(scores), golden_.Tensor("scores"),
                        [&](std::size_t i) {  // the bound of a score is relative
                          return golden_.Bound("scores") * golden_.Tensor("scores")[i];
                        }));
  if (golden_.json.at("prefill").is_null()) return;
  const nlohmann::json& expected = golden_.json.at("prefill");
  EXPECT_NEAR(result->kept_mass(), expected.at("kept_share"), golden_.Bound("kept_share"));
  for (std::size_t layer = 0; layer < result->layers.size(); ++layer) {
    for (std::size_t head = 0; head < static_cast<std::size_t>(kv_heads()); ++head) {
      EXPECT_NEAR(result->layers[layer].preference[head],
                  expected.at("preference").at(layer).at(head), golden_.Bound("preference"));
      EXPECT_NEAR(result->layers[layer].prompt_mass[head],
                  expected.at("prompt_mass").at(layer).at(head), golden_.Bound("prompt_mass"));
    }
  }
}

// Kept positions of each layer and head. Returns whether all are equal to the oracle's.
bool CompareKept(const GoldenCase& golden, const std::vector<std::int32_t>& all,
                 const HeapKvEntry& entry) {
  if (golden.cache == "full") {
    for (std::int64_t layer = 0; layer < entry.shape().layers; ++layer) {
      for (std::int64_t head = 0; head < entry.shape().kv_heads; ++head) {
        EXPECT_TRUE(std::ranges::equal(entry.Positions(layer, head), all)) << golden.name;
      }
    }
    return true;
  }
  const nlohmann::json& expected = golden.json.at("prefill").at("kept");
  bool all_equal = true;
  std::int64_t undecided = 0, differing = 0;
  for (std::int64_t layer = 0; layer < entry.shape().layers; ++layer) {
    for (std::int64_t head = 0; head < entry.shape().kv_heads; ++head) {
      const auto l = static_cast<std::size_t>(layer), h = static_cast<std::size_t>(head);
      const auto kept = entry.Positions(layer, head);
      const bool equal = std::vector<std::int32_t>(kept.begin(), kept.end()) ==
                         expected.at(l).at(h).get<std::vector<std::int32_t>>();
      const nlohmann::json& margins = golden.json.at("margins");
      const bool decided = margins.at("layer_budgets_decided").get<bool>() &&
                           margins.at("head_budgets_decided").at(l).get<bool>() &&
                           margins.at("selection_decided").at(l).at(h).get<bool>();
      if (decided) {
        EXPECT_TRUE(equal) << golden.name << " layer " << layer << " head " << head;
      }
      undecided += decided ? 0 : 1;
      differing += equal ? 0 : 1;
      all_equal &= equal;
    }
  }
  if (undecided > 0) {
    std::printf("%s: %lld head selections within the bound, %lld of them differ\n",
                golden.name.c_str(), static_cast<long long>(undecided),
                static_cast<long long>(differing));
  }
  return all_equal;
}

// The entry's keys or values as one (pairs, head_dim) matrix, layer by layer, head by head.
std::vector<float> Pairs(const HeapKvEntry& entry, bool keys) {
  std::vector<float> all;
  for (std::int64_t layer = 0; layer < entry.shape().layers; ++layer) {
    for (const kernels::CachedHead& head : entry.Layer(layer)) {
      const auto* data = static_cast<const float*>(keys ? head.k : head.v);
      all.insert(all.end(), data, data + head.pairs * entry.shape().head_dim);
    }
  }
  return all;
}

TEST_P(GoldenTest, KeptPairsAndCommittedTokensAreTheOraclesWhereverItsMarginExceedsTheBound) {
  DecodeRequest request;
  request.prompt_tokens = golden_.answered_tokens();
  request.params = golden_.params;
  request.response = golden_.canvas;
  request.suffix_tokens = std::ssize(golden_.suffix);
  if (golden_.cache == "none") {
    request.prompt = golden_.prompt;
    request.suffix = golden_.suffix;
  } else {
    const std::vector<Row> rows = Rows();
    PrefillRequest prefill;
    prefill.rows = rows;
    prefill.plan = golden_.plan;
    auto entry = std::make_shared<HeapKvEntry>();
    const auto result = Prefiller(model_.transformer).Run(prefill, *entry);
    ASSERT_TRUE(result.ok()) << result.status();
    if (!CompareKept(golden_, Candidates(), *entry)) {
      std::printf("%s: steps not compared, another selection was kept\n", golden_.name.c_str());
      return;
    }
    for (const std::string tensor : {"kept_k", "kept_v"}) {
      if (!golden_.Has(tensor)) continue;
      const std::vector<float> pairs = Pairs(*entry, tensor == "kept_k");
      EXPECT_TRUE(AllWithin(std::span<const float>(pairs), golden_.Tensor(tensor),
                            [&](std::size_t) { return golden_.Bound(tensor); }))
          << tensor;
    }
    request.prompt = RecomputedTail(model_.weights.config(), golden_.prompt);
    request.cache = std::move(entry);
    if (golden_.reuse) {
      request.prompt = golden_.reuse->question;
      request.suffix = golden_.suffix;
      request.cache = std::make_shared<PrefixView>(request.cache, golden_.reuse->document_tokens);
    }
  }
  Decoder decoder(model_.transformer);
  const auto id = decoder.Add(std::move(request));
  ASSERT_TRUE(id.ok()) << id.status();
  std::size_t compared = 0, undecided = 0;
  const nlohmann::json& steps = golden_.json.at("steps");
  for (const nlohmann::json& expected : steps) {
    ASSERT_EQ(decoder.running(), 1);
    const StepEvent event = decoder.Step().front();
    decoder.CheckInvariants();
    ASSERT_TRUE(event.status.ok()) << event.status;
    EXPECT_EQ(event.step, expected.at("step").get<std::int64_t>());
    const nlohmann::json& committed = expected.at("committed");
    bool equal = committed.size() == event.committed.size();
    for (std::size_t i = 0; equal && i < committed.size(); ++i) {
      equal = event.committed[i].position == committed.at(i).at(0) &&
              event.committed[i].token == committed.at(i).at(1);
    }
    if (expected.at("decided").get<bool>()) {
      ASSERT_TRUE(equal) << golden_.name << " step " << event.step;
      for (std::size_t i = 0; i < committed.size(); ++i) {
        const double confidence = committed.at(i).at(2).get<double>();
        const double bound = expected.at("bounds").at("confidence").get<double>();
        EXPECT_NEAR(event.committed[i].confidence, confidence, bound);
        // What the bound says about the logarithm, which is rounded once more.
        const double log = event.committed[i].log_probability;
        const double rounding = std::abs(log) * 0x1p-24;
        EXPECT_LE(log, std::log(confidence + bound) + rounding);
        if (confidence > bound) {
          EXPECT_GE(log, std::log(confidence - bound) - rounding);
        }
      }
    } else {
      ++undecided;
    }
    if (!equal) break;  // a tie went the other way: the canvases differ from here on
    ++compared;
  }
  if (undecided > 0) {
    std::printf("%s: %zu of %zu steps within the bound\n", golden_.name.c_str(), undecided,
                steps.size());
  }
  if (compared < steps.size()) {
    std::printf("%s: %zu of %zu steps not compared\n", golden_.name.c_str(),
                steps.size() - compared, steps.size());
    return;
  }
  EXPECT_EQ(decoder.running(), 0);
  EXPECT_EQ(decoder.Find(*id)->Answer(),
            golden_.json.at("answer").at("tokens").get<std::vector<std::int32_t>>());
  EXPECT_EQ(Name(decoder.Find(*id)->finish_reason()),
            golden_.json.at("answer").at("finish_reason").get<std::string>());
}

TEST(GoldenFiles, HoldEveryTensorInSomeCase) {
  for (const std::string tensor : {"hidden", "logits", "scores", "kept_k", "kept_v"}) {
    const std::vector<std::string> names = GoldenCase::Names();
    EXPECT_TRUE(std::any_of(names.begin(), names.end(), [&](const std::string& name) {
      return GoldenCase(name).Has(tensor);
    })) << tensor;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenTest, ::testing::ValuesIn(GoldenCase::Names()),
                         GoldenTestName);

}  // namespace
}  // namespace maskkv::engine::golden_test
