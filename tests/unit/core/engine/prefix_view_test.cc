// SPDX-License-Identifier: Apache-2.0
#include "core/engine/prefix_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "core/engine/heap_kv.h"
#include "tests/support/seed.h"

namespace maskkv::engine::prefix_view_test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr EntryShape kShape{.layers = 2, .kv_heads = 2, .head_dim = 3};

std::shared_ptr<const HeapKvEntry> Entry(const std::vector<std::vector<std::int32_t>>& positions) {
  auto entry = std::make_shared<HeapKvEntry>();
  EXPECT_TRUE(entry->Begin(kShape, 1000).ok());
  for (std::int64_t layer = 0; layer < kShape.layers; ++layer) {
    const auto of_layer = std::span(positions).subspan(static_cast<std::size_t>(2 * layer), 2);
    const std::vector<std::int64_t> pairs = {static_cast<std::int64_t>(of_layer[0].size()),
                                             static_cast<std::int64_t>(of_layer[1].size())};
    const auto extents = entry->AllocateLayer(layer, pairs);
    EXPECT_TRUE(extents.ok()) << extents.status();
    for (std::size_t head = 0; head < 2; ++head) {
      std::ranges::copy(of_layer[head], (*extents)[head].positions);
    }
  }
  EXPECT_TRUE(entry->Finish().ok());
  return entry;
}

TEST(PrefixView, ShowsThePairsBeforeAPosition) {
  const auto base = Entry({{0, 3, 4}, {4, 5}, {}, {1, 2, 3}});
  const PrefixView view(base, 4);
  EXPECT_EQ(view.shape(), kShape);
  EXPECT_THAT(view.Positions(0, 0), ElementsAre(0, 3));
  EXPECT_THAT(view.Positions(0, 1), IsEmpty());
  EXPECT_THAT(view.Positions(1, 0), IsEmpty());
  EXPECT_THAT(view.Positions(1, 1), ElementsAre(1, 2, 3));
  EXPECT_EQ(view.pairs(), 5);
  EXPECT_EQ(view.bytes(), 5 * kShape.PairBytes());
  for (std::int64_t layer = 0; layer < 2; ++layer) {
    for (std::size_t head = 0; head < 2; ++head) {
      EXPECT_EQ(view.Layer(layer)[head].k, base->Layer(layer)[head].k);
      EXPECT_EQ(view.Layer(layer)[head].v, base->Layer(layer)[head].v);
      EXPECT_EQ(
          view.Layer(layer)[head].pairs,
          static_cast<std::int64_t>(view.Positions(layer, static_cast<std::int64_t>(head)).size()));
    }
  }
}

TEST(PrefixView, ShowsNothingOfNoPositionsAndAllOfMoreThanThereAre) {
  const auto base = Entry({{0}, {1}, {2}, {3}});
  EXPECT_EQ(PrefixView(base, 0).pairs(), 0);
  EXPECT_EQ(PrefixView(base, -1).pairs(), 0);
  EXPECT_EQ(PrefixView(base, std::int64_t{1} << 40).bytes(), base->bytes());
}

TEST(PrefixView, KeepsItsBaseAlive) {
  auto base = Entry({{0}, {1}, {2}, {3}});
  const std::weak_ptr<const HeapKvEntry> watch = base;
  auto view = std::make_unique<const PrefixView>(std::move(base), 2);
  EXPECT_FALSE(watch.expired());
  EXPECT_THAT(view->Positions(0, 1), ElementsAre(1));
  view.reset();
  EXPECT_TRUE(watch.expired());
}

TEST(PrefixView, IsAFilterOfRandomEntries) {
  std::mt19937_64 random(maskkv::testing::Seed());
  for (int run = 0; run < 100; ++run) {
    std::vector<std::vector<std::int32_t>> positions(4);
    for (auto& of_head : positions) {
      for (std::int32_t i = 0; i < 20; ++i) {
        if (random() % 2 == 0) of_head.push_back(i);
      }
    }
    const auto limit = static_cast<std::int32_t>(random() % 22);
    const PrefixView view(Entry(positions), limit);
    for (std::size_t i = 0; i < 4; ++i) {
      std::erase_if(positions[i], [&](std::int32_t position) { return position >= limit; });
      EXPECT_THAT(
          view.Positions(static_cast<std::int64_t>(i / 2), static_cast<std::int64_t>(i % 2)),
          ::testing::ElementsAreArray(positions[i]));
    }
  }
}

}  // namespace
}  // namespace maskkv::engine::prefix_view_test
