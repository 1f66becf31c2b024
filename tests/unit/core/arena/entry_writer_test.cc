// SPDX-License-Identifier: Apache-2.0
#include "core/arena/entry_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "core/arena/mapped_entry.h"
#include "core/base/error.h"
#include "core/engine/decode.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/engine/prompt.h"
#include "tests/support/entry_bytes.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/engine/golden_case.h"

namespace maskkv::arena {
namespace {

using maskkv::testing::EntryContent;
using maskkv::testing::IsOk;
using maskkv::testing::StatusIs;
using ::testing::HasSubstr;

constexpr engine::EntryShape kShape{.layers = 2, .kv_heads = 2, .head_dim = 3};

void ExpectSamePairs(const engine::KvView& a, const engine::KvView& b) {
  ASSERT_EQ(a.shape(), b.shape());
  EXPECT_EQ(a.bytes(), b.bytes());
  const std::size_t row =
      static_cast<std::size_t>(a.shape().head_dim) * kernels::SizeOf(a.shape().dtype);
  for (std::int64_t layer = 0; layer < a.shape().layers; ++layer) {
    for (std::int64_t head = 0; head < a.shape().kv_heads; ++head) {
      const kernels::CachedHead& x = a.Layer(layer)[static_cast<std::size_t>(head)];
      const kernels::CachedHead& y = b.Layer(layer)[static_cast<std::size_t>(head)];
      ASSERT_EQ(x.pairs, y.pairs);
      EXPECT_TRUE(std::ranges::equal(a.Positions(layer, head), b.Positions(layer, head)));
      if (x.pairs == 0) continue;
      const std::size_t bytes = static_cast<std::size_t>(x.pairs) * row;
      EXPECT_EQ(std::memcmp(x.k, y.k, bytes), 0) << "keys of layer " << layer << " head " << head;
      for (const auto& [scales, others] :
           {std::pair{x.k_scales, y.k_scales}, {x.v_scales, y.v_scales}}) {
        ASSERT_EQ(scales != nullptr, a.shape().HasScales());
        if (scales == nullptr) continue;
        EXPECT_EQ(std::memcmp(scales, others, static_cast<std::size_t>(x.pairs) * sizeof(float)), 0)
            << "scales of layer " << layer << " head " << head;
      }
      EXPECT_EQ(std::memcmp(x.v, y.v, bytes), 0) << "values of layer " << layer << " head " << head;
    }
  }
}

TEST(MaxEntryBytes, IsEnoughAndTightForRandomContent) {
  std::mt19937_64 random(maskkv::testing::Seed());
  for (int run = 0; run < 300; ++run) {
    const EntryContent content = maskkv::testing::RandomContent(random);
    const std::int64_t heads = content.shape.layers * content.shape.kv_heads;
    MASKKV_ASSERT_OK_AND_ASSIGN(const std::uint64_t most,
                                MaxEntryBytes(content.shape, content.Pairs()));
    maskkv::testing::EntryBytes entry(content, random);  // checks that it fits
    const std::int64_t arrays = content.shape.HasScales() ? 4 : 3;
    EXPECT_LE(most - entry.bytes().size(), static_cast<std::uint64_t>(64 * arrays * (heads + 1)));
  }
}

TEST(MaxEntryBytes, RefusesWhatIsNoSize) {
  const std::int64_t big = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(ErrorReason(MaxEntryBytes(kShape, big).status()), "ENTRY_TOO_LARGE");
  EXPECT_EQ(MaxEntryBytes(kShape, big).status().code(), absl::StatusCode::kResourceExhausted);
  const std::int64_t wide = std::numeric_limits<std::int32_t>::max();
  const engine::EntryShape grid{.layers = wide, .kv_heads = wide, .head_dim = wide};
  EXPECT_EQ(ErrorReason(MaxEntryBytes(grid, 0).status()), "ENTRY_TOO_LARGE");
  for (const engine::EntryShape& shape :
       {engine::EntryShape{.layers = 0, .kv_heads = 1, .head_dim = 1},
        {.layers = 1, .kv_heads = -1, .head_dim = 1},
        {.layers = 1, .kv_heads = 1, .head_dim = wide + 1},
        {.layers = 1, .kv_heads = 1, .head_dim = 1, .rope_scale = 0.5},
        {.layers = 1, .kv_heads = 1, .head_dim = 1, .rope_scale = std::nan("")}}) {
    EXPECT_EQ(MaxEntryBytes(shape, 1).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(MaxEntryBytes(kShape, -1).status().code(), absl::StatusCode::kInvalidArgument);
}

class EntryWriterTest : public ::testing::Test {
 protected:
  EntryWriterTest() : memory_(4096), writer_(memory_.span(), EntryMetadata{}) {}

  kernels::AlignedBuffer<std::byte> memory_;
  EntryWriter writer_;
};

TEST_F(EntryWriterTest, RefusesCallsOutOfOrder) {
  const std::vector<std::int64_t> one = {1, 1};
  constexpr auto kOrder = absl::StatusCode::kFailedPrecondition;
  EXPECT_EQ(writer_.AllocateLayer(0, one).status().code(), kOrder);
  EXPECT_EQ(writer_.Finish().code(), kOrder);
  ASSERT_THAT(writer_.Begin(kShape, 4), IsOk());
  EXPECT_EQ(writer_.Begin(kShape, 4).code(), kOrder);
  EXPECT_THAT(writer_.AllocateLayer(1, one).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("expected 0 of 2, found 1")));
  EXPECT_EQ(writer_.AllocateLayer(0, std::vector<std::int64_t>{1}).status().code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_THAT(writer_.AllocateLayer(0, one), IsOk());
  EXPECT_EQ(writer_.Finish().code(), kOrder);
  EXPECT_EQ(writer_.Complete(1).status().code(), kOrder);
  ASSERT_THAT(writer_.AllocateLayer(1, one), IsOk());
  ASSERT_THAT(writer_.Finish(), IsOk());
  EXPECT_EQ(writer_.Finish().code(), kOrder);
  EXPECT_EQ(writer_.AllocateLayer(2, one).status().code(), kOrder);
  for (const double mass : {-0.1, 1.1, std::nan("")}) {
    EXPECT_EQ(writer_.Complete(mass).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_THAT(writer_.Complete(1), IsOk());
}

TEST_F(EntryWriterTest, RefusesMorePairsThanItWasTold) {
  ASSERT_THAT(writer_.Begin(kShape, 4), IsOk());
  for (const std::vector<std::int64_t>& pairs :
       {std::vector<std::int64_t>{4, 1}, {-1, 1}, {std::numeric_limits<std::int64_t>::max(), 1}}) {
    EXPECT_EQ(writer_.AllocateLayer(0, pairs).status().code(),
              absl::StatusCode::kResourceExhausted);
  }
}

TEST_F(EntryWriterTest, RefusesMemoryThatIsTooSmallOrMisaligned) {
  const auto most = MaxEntryBytes(kShape, 4);
  ASSERT_THAT(most, IsOk());
  EntryWriter small(memory_.span().first(*most - 1), EntryMetadata{});
  EXPECT_EQ(ErrorReason(small.Begin(kShape, 4)), "ENTRY_TOO_LARGE");
  EntryWriter odd(memory_.span().subspan(8), EntryMetadata{});
  EXPECT_EQ(odd.Begin(kShape, 4).code(), absl::StatusCode::kInvalidArgument);
  EntryWriter enough(memory_.span().first(*most), EntryMetadata{});
  EXPECT_THAT(enough.Begin(kShape, 4), IsOk());
}

TEST_F(EntryWriterTest, RefusesMetadataOutOfRange) {
  for (const EntryMetadata& metadata : {EntryMetadata{.prompt_tokens = -1},
                                        {.prompt_tokens = 1, .document_tokens = 2},
                                        {.prompt_tokens = kMaxPromptTokens + 1},
                                        {.masks = -1},
                                        {.budget = -1}}) {
    EntryWriter writer(memory_.span(), metadata);
    EXPECT_EQ(writer.Begin(kShape, 4).code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(EntryWriterTest, LeavesNoValidHeaderBeforeItIsComplete) {
  // What an entry left there before.
  ASSERT_THAT(writer_.Begin(kShape, 0), IsOk());
  const std::vector<std::int64_t> none = {0, 0};
  for (std::int64_t layer = 0; layer < 2; ++layer) {
    ASSERT_THAT(writer_.AllocateLayer(layer, none), IsOk());
  }
  ASSERT_THAT(writer_.Finish(), IsOk());
  MASKKV_ASSERT_OK_AND_ASSIGN(const std::uint64_t used, writer_.Complete(1));
  const auto entry = memory_.span().first(used);
  EXPECT_THAT(ValidateEntry(entry, {}), IsOk());

  EntryWriter second(memory_.span(), EntryMetadata{});
  ASSERT_THAT(second.Begin(kShape, 0), IsOk());
  EXPECT_EQ(ErrorReason(ValidateEntry(entry, {}).status()), "BAD_HEADER");
}

TEST(EntryWriter, WritesWhatTheHeapEntryHoldsForRandomContent) {
  std::mt19937_64 random(maskkv::testing::Seed());
  for (int run = 0; run < 200; ++run) {
    const EntryContent content = maskkv::testing::RandomContent(random);
    std::mt19937_64 same = random;
    engine::HeapKvEntry heap;
    ASSERT_THAT(maskkv::testing::WriteContent(content, same, heap), IsOk());
    const auto most = MaxEntryBytes(content.shape, content.Pairs());
    ASSERT_THAT(most, IsOk());
    kernels::AlignedBuffer<std::byte> memory(static_cast<std::int64_t>(*most));
    EntryWriter writer(memory.span(), content.metadata);
    ASSERT_THAT(maskkv::testing::WriteContent(content, random, writer), IsOk());
    MASKKV_ASSERT_OK_AND_ASSIGN(const std::uint64_t used,
                                writer.Complete(content.metadata.kept_mass));
    MASKKV_ASSERT_OK_AND_ASSIGN(
        const auto view,
        MappedEntry::Over(memory.span().first(used), {.epoch = content.metadata.epoch,
                                                      .entry_id = content.metadata.entry_id}));
    EXPECT_EQ(view->metadata(), content.metadata);
    EXPECT_EQ(view->pairs(), content.Pairs());
    ExpectSamePairs(*view, heap);
  }
}

// Bytes depend on content alone: not on what the memory held.
TEST(EntryWriter, WritesTheSameBytesIntoDirtyMemory) {
  std::mt19937_64 random(maskkv::testing::Seed());
  const EntryContent content = maskkv::testing::RandomContent(random);
  std::vector<std::byte> first;
  for (const int dirt : {0, 255}) {
    std::mt19937_64 same(5);
    kernels::AlignedBuffer<std::byte> memory(65536);
    std::memset(memory.data(), dirt, 65536);
    EntryWriter writer(memory.span(), content.metadata);
    ASSERT_THAT(maskkv::testing::WriteContent(content, same, writer), IsOk());
    const auto used = writer.Complete(1);
    ASSERT_THAT(used, IsOk());
    const std::vector<std::byte> bytes(memory.data(), memory.data() + *used);
    if (first.empty()) first = bytes;
    EXPECT_EQ(bytes, first);
  }
}

// The real prefill and decode over the real format.
class GoldenEntryTest : public ::testing::TestWithParam<std::string> {};

std::vector<std::int32_t> Decode(engine::TestModel& model, const engine::GoldenCase& golden,
                                 std::shared_ptr<const engine::KvView> entry) {
  engine::Decoder decoder(model.transformer);
  engine::DecodeRequest request;
  request.prompt_tokens = static_cast<std::int64_t>(golden.prompt.size());
  request.params = golden.params;
  request.prompt = engine::RecomputedTail(model.weights.config(), golden.prompt);
  request.cache = std::move(entry);
  const auto id = decoder.Add(std::move(request));
  EXPECT_THAT(id, IsOk());
  while (decoder.running() > 0) EXPECT_THAT(decoder.Step().front().status, IsOk());
  const auto tokens = decoder.Find(*id)->tokens();
  return {tokens.begin(), tokens.end()};
}

TEST_P(GoldenEntryTest, PrefillWritesTheHeapsPairsAndDecodeGivesTheSameTokens) {
  const engine::GoldenCase golden(GetParam());
  for (const kernels::DType dtype :
       {kernels::DType::kF32, kernels::DType::kBF16, kernels::DType::kInt8}) {
    const kernels::DType compute = dtype == kernels::DType::kBF16 ? dtype : kernels::DType::kF32;
    engine::TestModel model(golden.model_directory(), compute, 2, golden.positions());
    const auto rows =
        engine::PromptThenMasks(golden.prompt, golden.params.gen_length, model.weights.config());
    engine::PrefillRequest request;
    request.rows = rows;
    request.plan = golden.plan;
    request.kv_dtype = dtype;
    auto heap = std::make_shared<engine::HeapKvEntry>();
    engine::Prefiller prefiller(model.transformer);
    ASSERT_THAT(prefiller.Run(request, *heap), IsOk());

    const auto most =
        MaxEntryBytes(heap->shape(), heap->shape().layers * heap->shape().kv_heads *
                                         static_cast<std::int64_t>(golden.prompt.size()));
    ASSERT_THAT(most, IsOk());
    kernels::AlignedBuffer<std::byte> memory(static_cast<std::int64_t>(*most));
    EntryMetadata metadata{.epoch = 3, .entry_id = 4};
    metadata.prompt_tokens = static_cast<std::int64_t>(golden.prompt.size());
    EntryWriter writer(memory.span(), metadata);
    MASKKV_ASSERT_OK_AND_ASSIGN(const engine::PrefillResult result, prefiller.Run(request, writer));
    const auto used = writer.Complete(std::min(result.kept_mass(), 1.0));
    ASSERT_THAT(used, IsOk());
    MASKKV_ASSERT_OK_AND_ASSIGN(const auto entry, MappedEntry::Over(memory.span().first(*used),
                                                                    {.epoch = 3, .entry_id = 4}));
    ExpectSamePairs(*entry, *heap);
    EXPECT_EQ(Decode(model, golden, entry), Decode(model, golden, heap));
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenEntryTest,
                         ::testing::Values("gqa-offline", "gqa-online", "mha-budget-one",
                                           "odd-none", "mqa-full", "deep-offline"),
                         [](const auto& case_info) {
                           std::string name = case_info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace maskkv::arena
