// SPDX-License-Identifier: Apache-2.0
//
// Token automata and what they leave possible on a canvas, against every word that there is.
#include "core/decoding/token_automaton.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "core/decoding/canvas_constraint.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/core/decoding/automata.h"

namespace maskkv::decoding {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::StartsWith;
using testing::StatusIs;
using Ids = std::vector<std::int32_t>;

constexpr std::int32_t kMask = CanvasConstraint::kMask;

// a (b | cd)*: ids 0, 1, 2, 3.
AutomatonParts Small() {
  return {.states = 3,
          .start = 0,
          .accepting = {1},
          .sets = {{{0, 0}}, {{1, 1}}, {{2, 2}}, {{3, 3}}},
          .arcs = {{0, 0, 1}, {1, 1, 1}, {1, 2, 2}, {2, 3, 1}}};
}

// Twice the same of ids 0 .. ids - 1, then nothing.
AutomatonParts Twins(std::int32_t ids) {
  AutomatonParts parts{.states = ids + 2, .start = 0, .accepting = {1}};
  for (std::int32_t id = 0; id < ids; ++id) {
    parts.sets.push_back({{id, id}});
    parts.arcs.push_back({0, id, id + 2});
    parts.arcs.push_back({id + 2, id, 1});
  }
  return parts;
}

std::shared_ptr<const TokenAutomaton> Made(AutomatonParts parts) {
  const auto automaton = TokenAutomaton::Make(std::move(parts));
  EXPECT_THAT(automaton, IsOk());
  return *automaton;
}

TEST(TokenAutomaton, RefusesWhatIsMalformedAndSaysWhat) {
  const std::vector<std::pair<std::function<void(AutomatonParts&)>, std::string>> cases = {
      {[](auto& p) { p.states = 0; }, "states: expected 1 to 65536, found 0"},
      {[](auto& p) { p.states = -1; }, "states: expected 1 to 65536, found -1"},
      {[](auto& p) { p.states = 65537; }, "states: expected 1 to 65536, found 65537"},
      {[](auto& p) { p.start = 3; }, "start 0: expected a state from 0 to 2, found 3"},
      {[](auto& p) { p.start = -1; }, "start 0: expected a state from 0 to 2, found -1"},
      {[](auto& p) {
         p.accepting = {0, 3};
       },
       "accepting state 1: expected a state from 0 to 2, found 3"},
      {[](auto& p) { p.accepting.assign(65537, 0); }, "accepting states: expected 0 to 65536"},
      {[](auto& p) { p.sets[2].clear(); }, "set 2: expected at least one id, found none"},
      {[](auto& p) {
         p.sets[1] = {{-1, 2}};
       },
       "set 1: expected ranges of ids from 0 on"},
      {[](auto& p) {
         p.sets[1] = {{3, 2}};
       },
       "found 3 to 2"},
      {[](auto& p) {
         p.sets[1] = {{4, 5}, {1, 2}};
       },
       "found 1 to 2"},
      {[](auto& p) {
         p.sets[1] = {{1, 2}, {2, 4}};
       },
       "found 2 to 4"},
      {[](auto& p) {
         p.sets[1] = {{1, 2}, {3, 4}};
       },
       "found 3 to 4"},  // no gap
      {[](auto& p) {
         p.sets[0] = {{0, INT32_MAX}, {0, 0}};
       },
       "found 0 to 0"},
      {[](auto& p) {
         p.sets.assign(65537, {{0, 0}});
       },
       "sets: expected 0 to 65536"},
      {[](auto& p) { p.arcs[1].from = 3; }, "arc 1: expected a state from 0 to 2, found 3"},
      {[](auto& p) { p.arcs[2].to = -2; }, "arc 2: expected a state from 0 to 2, found -2"},
      {[](auto& p) { p.arcs[3].set = 4; }, "arc 3: expected a set from 0 to 3, found 4"},
      {[](auto& p) { p.arcs.resize((1 << 20) + 1); }, "arcs: expected 0 to 1048576"},
  };
  EXPECT_THAT(TokenAutomaton::Make(Small()), IsOk());
  for (const auto& [spoil, said] : cases) {
    AutomatonParts parts = Small();
    spoil(parts);
    EXPECT_THAT(TokenAutomaton::Make(std::move(parts)),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         ::testing::AllOf(StartsWith("automaton: "), HasSubstr(said))));
  }
  AutomatonParts many = Small();  // ranges that are too many together
  std::vector<IdRange> set;
  for (std::int32_t id = 0; id < 1 << 16; ++id) set.push_back({2 * id, 2 * id});
  many.sets.assign(65, set);
  EXPECT_THAT(TokenAutomaton::Make(std::move(many)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("ranges of all sets: expected 0 to 4194304, found 4259840")));
}

TEST(TokenAutomaton, TellsArcsIdsAndTheShortestAnswer) {
  AutomatonParts parts = Small();
  parts.arcs.push_back(parts.arcs[1]);  // twice
  const auto automaton = Made(parts);
  EXPECT_EQ(automaton->arcs(), 4);
  EXPECT_THAT(automaton->arcs_from(1), ElementsAre(AutomatonArc{1, 1, 1}, AutomatonArc{1, 2, 2}));
  EXPECT_THAT(automaton->SetsWith(2), ElementsAre(0, 0, 1, 0));
  EXPECT_THAT(automaton->SetsWith(7), ElementsAre(0, 0, 0, 0));
  EXPECT_EQ(automaton->ShortestAnswer(), 1);
  parts.start = 2;
  EXPECT_EQ(Made(parts)->ShortestAnswer(), 1);
  parts.accepting = {0};
  EXPECT_EQ(Made(parts)->ShortestAnswer(), std::nullopt);
  EXPECT_EQ(Made({.states = 1, .accepting = {0}})->ShortestAnswer(), 0);
  parts.sets = {{{2, 4}, {8, 9}, {20, INT32_MAX}}};
  parts.arcs = {};
  for (const auto& [id, held] : std::vector<std::pair<int, int>>{
           {0, 0}, {1, 0}, {2, 1}, {4, 1}, {5, 0}, {8, 1}, {10, 0}, {20, 1}, {INT32_MAX, 1}}) {
    EXPECT_THAT(Made(parts)->SetsWith(id), ElementsAre(held)) << id;
  }
}

TEST(CanvasConstraint, AllowsWhatLeadsToAnAcceptedAnswerAndEndIds) {
  CanvasConstraint constraint(Made(Small()), {9}, Ids(3, kMask));
  ASSERT_TRUE(constraint.possible());
  EXPECT_THAT(constraint.AllowedSets(0), ElementsAre(0));
  EXPECT_THAT(constraint.AllowedSets(1), ElementsAre(1, 2, 4));  // 4: the end
  EXPECT_THAT(constraint.AllowedSets(2), ElementsAre(1, 3, 4));
  EXPECT_THAT(constraint.IdsOf(Ids{1, 2, 4}, 20), ElementsAre(IdRange{1, 2}, IdRange{9, 9}));
  EXPECT_THAT(constraint.IdsOf(Ids{1, 2, 4}, 2), ElementsAre(IdRange{1, 1}));
  EXPECT_THAT(constraint.IdsOf(Ids{0, 3}, 4), ElementsAre(IdRange{0, 0}, IdRange{3, 3}));
  EXPECT_FALSE(constraint.Decide(0, 1));
  EXPECT_FALSE(constraint.Decide(1, 77));
  EXPECT_TRUE(constraint.Decide(2, 3));
  EXPECT_THAT(constraint.AllowedSets(1), ElementsAre(2));
  EXPECT_FALSE(constraint.Decide(1, 9));
  EXPECT_TRUE(constraint.Decide(1, 2));
  EXPECT_TRUE(constraint.Decide(0, 0));
}

TEST(CanvasConstraint, IsImpossibleWhereNothingFits) {
  EXPECT_FALSE(CanvasConstraint(Made(Small()), {9}, Ids{}).possible());
  EXPECT_TRUE(CanvasConstraint(Made({.states = 1, .accepting = {0}}), {9}, Ids{}).possible());
  EXPECT_TRUE(CanvasConstraint(Made({.states = 1, .accepting = {0}}), {9}, Ids{kMask}).possible());
  EXPECT_FALSE(CanvasConstraint(Made({.states = 1, .accepting = {0}}), {}, Ids{kMask}).possible());
  EXPECT_FALSE(CanvasConstraint(Made(Twins(3)), {9}, Ids{kMask}).possible());
  EXPECT_TRUE(CanvasConstraint(Made(Twins(3)), {}, Ids{kMask, 2}).possible());
  EXPECT_FALSE(CanvasConstraint(Made(Twins(3)), {}, Ids{1, 2}).possible());
  EXPECT_FALSE(CanvasConstraint(Made(Twins(3)), {9}, Ids{kMask, 9}).possible());
}

TEST(CanvasConstraint, DecidesByDescendingScoreWhatFitsTogether) {
  const auto decide = [](std::vector<float> scores, Ids tokens) {
    CanvasConstraint constraint(Made(Twins(4)), {9}, Ids(3, kMask));
    std::vector<Prediction> predictions;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      predictions.push_back({.position = static_cast<std::int64_t>(i), .token = tokens[i]});
      predictions.back().score = scores[i];
    }
    return constraint.DecideThoseThatFit(predictions, {0, 1, 2});
  };
  EXPECT_THAT(decide({0.1F, 0.2F, 0.3F}, {1, 1, 9}), ElementsAre(0, 1, 2));
  EXPECT_THAT(decide({0.1F, 0.2F, 0.3F}, {1, 2, 9}), ElementsAre(1, 2));
  EXPECT_THAT(decide({0.3F, 0.2F, 0.1F}, {1, 2, 9}), ElementsAre(0, 2));
  EXPECT_THAT(decide({0.2F, 0.2F, 0.2F}, {3, 2, 9}), ElementsAre(0, 2));  // ties: lower position
  CanvasConstraint constraint(Made(Twins(4)), {9}, Ids(3, kMask));
  EXPECT_THAT(constraint.DecideThoseThatFit({}, {}), ElementsAre());
}

// Every word of `length` ids below `ids`.
std::vector<Ids> Words(std::size_t length, std::int32_t ids) {
  std::vector<Ids> words{{}};
  for (std::size_t i = 0; i < length; ++i) {
    std::vector<Ids> longer;
    for (const Ids& word : words) {
      for (std::int32_t id = 0; id < ids; ++id) {
        longer.push_back(word);
        longer.back().push_back(id);
      }
    }
    words = std::move(longer);
  }
  return words;
}

// Compares with `words`, the completions that there are.
void CompareWith(const std::vector<Ids>& words, const Ids& canvas,
                 const CanvasConstraint& constraint, std::int32_t ids) {
  ASSERT_EQ(constraint.possible(), !words.empty());
  if (words.empty()) return;
  for (std::size_t i = 0; i < canvas.size(); ++i) {
    if (canvas[i] != kMask) continue;
    const std::vector<IdRange> allowed =
        constraint.IdsOf(constraint.AllowedSets(static_cast<std::int64_t>(i)), ids);
    for (std::int32_t id = 0; id < ids; ++id) {
      ASSERT_EQ(Holds(allowed, id),
                std::ranges::any_of(words, [&](const Ids& word) { return word[i] == id; }))
          << "position " << i << ", id " << id;
    }
  }
}

TEST(CanvasConstraint, EqualsTheEnumerationOfAllWords) {
  std::mt19937_64 random(testing::Seed());
  constexpr std::int32_t kIds = 6;  // 0 to 3 in sets, 4 and 5 end
  int possible = 0, refused = 0;
  for (int round = 0; round < 150; ++round) {
    const AutomatonParts parts = RandomAutomaton(random, 4);
    const std::size_t length = 1 + random() % 4;
    const Ids ends = std::vector<Ids>{{4, 5}, {5}, {}}[random() % 3];
    std::vector<Ids> words = Words(length, kIds);
    std::erase_if(words, [&](const Ids& word) { return !Accepts(parts, ends, word); });
    Ids canvas(length, kMask);
    if (round % 3 == 0) canvas[random() % length] = static_cast<std::int32_t>(random() % kIds);
    const auto differs = [&](const Ids& word) {
      for (std::size_t i = 0; i < length; ++i) {
        if (canvas[i] != kMask && canvas[i] != word[i]) return true;
      }
      return false;
    };
    std::erase_if(words, differs);
    CanvasConstraint constraint(Made(parts), ends, canvas);
    CompareWith(words, canvas, constraint, kIds);
    possible += words.empty() ? 0 : 1;
    for (int tries = 0; tries < 12 && !words.empty() && !HasFatalFailure(); ++tries) {
      const std::size_t position = random() % length;
      if (canvas[position] != kMask) continue;
      const auto id = static_cast<std::int32_t>(random() % kIds);
      const bool fits =
          std::ranges::any_of(words, [&](const Ids& word) { return word[position] == id; });
      ASSERT_EQ(constraint.Decide(static_cast<std::int64_t>(position), id), fits);
      refused += fits ? 0 : 1;
      if (fits) canvas[position] = id;
      std::erase_if(words, differs);
      CompareWith(words, canvas, constraint, kIds);
    }
    ASSERT_FALSE(HasFatalFailure()) << "round " << round;
  }
  EXPECT_GT(possible, 40);
  EXPECT_GT(refused, 100);
}

TEST(TokenAutomaton, RandomPartsAreRefusedOrUsable) {
  std::mt19937_64 random(testing::Seed());
  int made = 0;
  for (int round = 0; round < 3000; ++round) {
    AutomatonParts parts = RandomAutomaton(random, 8);
    const std::vector<std::int32_t> odd{-1, 0, 1, 7, 8, 100, INT32_MAX, INT32_MIN};
    for (std::uint64_t spoils = random() % 3; spoils > 0; --spoils) {
      const std::int32_t value = odd[random() % odd.size()];
      std::vector<IdRange>& set = parts.sets[random() % parts.sets.size()];
      AutomatonArc& arc = parts.arcs[random() % parts.arcs.size()];
      const std::vector<std::function<void()>> ways = {
          [&] { parts.states = value; },
          [&] { parts.start = value; },
          [&] { parts.accepting.push_back(value); },
          [&] { set.clear(); },
          [&] {
            set.push_back({value, odd[random() % odd.size()]});
          },
          [&] { arc.from = value; },
          [&] { arc.set = value; },
          [&] { arc.to = value; }};
      ways[random() % ways.size()]();
    }
    const auto automaton = TokenAutomaton::Make(parts);
    if (!automaton.ok()) {
      EXPECT_THAT(automaton, StatusIs(absl::StatusCode::kInvalidArgument,
                                      ::testing::AllOf(StartsWith("automaton: "),
                                                       HasSubstr("expected"), HasSubstr("found"))));
      continue;
    }
    ++made;
    CanvasConstraint constraint(*automaton, {200}, Ids(5, kMask));
    if (!constraint.possible()) continue;
    Ids canvas;
    for (std::int64_t i = 0; i < 5; ++i) {
      const std::vector<IdRange> ids = constraint.IdsOf(constraint.AllowedSets(i), 300);
      if (ids.empty()) break;  // only ids beyond the vocabulary
      canvas.push_back(ids[random() % ids.size()].last);
      ASSERT_TRUE(constraint.Decide(i, canvas.back()));
    }
    if (canvas.size() == 5) {
      EXPECT_TRUE(Accepts(parts, Ids{200}, canvas));
    }
  }
  EXPECT_GT(made, 500);
}

}  // namespace
}  // namespace maskkv::decoding
