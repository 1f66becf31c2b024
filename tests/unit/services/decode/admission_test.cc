// SPDX-License-Identifier: Apache-2.0
//
// The plain classes that decide whether and for whom a request is served: tokens, the gate, entries
// that are kept, entries that are used again.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "services/common/document_reuse.h"
#include "services/decode/kept_entries.h"
#include "services/decode/request_gate.h"
#include "services/decode/token_table.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::decode {
namespace {

using maskkv::testing::StatusIs;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::_;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(TokenTableTest, ATokenSpeaksForItsTenant) {
  MASKKV_ASSERT_OK_AND_ASSIGN(
      const TokenTable table,
      TokenTable::Parse(
          "# comment\n\nfirst-token-0123456 team-a\r\n  second-token-012345\tteam-b \n"
          "third-token-0123456 team-a",
          "tokens"));
  EXPECT_EQ(table.size(), 3U);
  EXPECT_EQ(*table.Authenticate("Bearer first-token-0123456"), "team-a");
  EXPECT_EQ(*table.Authenticate("Bearer second-token-012345"), "team-b");
  EXPECT_EQ(*table.Authenticate("Bearer third-token-0123456"), "team-a");
}

TEST(TokenTableTest, AnythingElseIsNotAuthenticated) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const TokenTable table,
                              TokenTable::Parse("first-token-0123456 team-a", "tokens"));
  for (const char* bad :
       {"", "Bearer ", "Bearer first-token-012345", "first-token-0123456",
        "bearer first-token-0123456", "Bearer first-token-0123456 ", "Bearer team-a"}) {
    const absl::Status status = table.Authenticate(bad).status();
    EXPECT_EQ(ErrorReason(status), "BAD_TOKEN") << bad;
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated);
  }
}

TEST(TokenTableTest, ABadFileIsRefusedWithTheLineAndWithoutTheToken) {
  for (const char* bad :
       {"good-token-01234567 a\nsecret team", "good-token-01234567 a\nsecret-token-0123456",
        "good-token-01234567 a\nsecret-token-0123456 Team",
        "good-token-01234567 a\nsecret-token-0123456 a b"}) {
    EXPECT_THAT(TokenTable::Parse(bad, "tokens"),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("tokens: line 2"), Not(HasSubstr("secret")))));
  }
  EXPECT_EQ(ErrorReason(TokenTable::Parse("# nothing\n", "tokens").status()), "BAD_TOKEN_FILE");
  EXPECT_THAT(TokenTable::Load("/nonexistent/tokens"), StatusIs(absl::StatusCode::kNotFound, _));
}

TEST(RequestGateTest, BeyondItsCapacityRequestsAreRefusedWithAHint) {
  ManualClock clock;
  RequestGate gate(2, clock);
  MASKKV_ASSERT_OK_AND_ASSIGN(RequestGate::Pass first, gate.Enter());
  clock.Advance(seconds(3));
  MASKKV_ASSERT_OK_AND_ASSIGN(RequestGate::Pass second, gate.Enter());
  const absl::Status full = gate.Enter().status();
  EXPECT_EQ(ErrorReason(full), "QUEUE_FULL");
  EXPECT_EQ(RetryAfter(full), milliseconds(3000));
  EXPECT_EQ(gate.LongestWait(), seconds(3));
  {
    const RequestGate::Pass gone = std::move(first);
    EXPECT_EQ(gate.waiting(), 2U);
  }
  EXPECT_EQ(gate.waiting(), 1U);
  EXPECT_EQ(gate.LongestWait(), seconds(0));
  EXPECT_TRUE(gate.Enter().ok());
}

TEST(RequestGateTest, AClosedGateLetsNobodyInAndWaitsForThoseInside) {
  ManualClock clock;
  RequestGate gate(2, clock);
  absl::StatusOr<RequestGate::Pass> inside = gate.Enter();
  ASSERT_TRUE(inside.ok());
  gate.Close(milliseconds(0));
  EXPECT_EQ(ErrorReason(gate.Enter().status()), "DRAINING");
  std::thread leaving([&] { inside = absl::CancelledError(); });
  gate.Close(seconds(600));
  EXPECT_EQ(gate.waiting(), 0U);
  leaving.join();
}

TEST(KeptEntriesTest, AnEntryIsHeldUntilTheLatestTimeAskedFor) {
  ManualClock clock;
  KeptEntries kept({}, clock);
  auto first = std::make_shared<int>(1), again = std::make_shared<int>(1);
  EXPECT_TRUE(kept.Keep("a", {1, 1}, first, 10, seconds(5)).empty());
  EXPECT_EQ(kept.Keep("a", {1, 1}, again, 10, seconds(2)).size(), 1U);
  clock.Advance(seconds(4));
  EXPECT_TRUE(kept.Expire().empty());
  clock.Advance(seconds(1));
  EXPECT_EQ(kept.Expire().size(), 1U);
  EXPECT_EQ(kept.size(), 0U);
}

TEST(KeptEntriesTest, ATenantAtItsBoundsLosesWhatWouldEndFirstAndOthersNothing) {
  ManualClock clock;
  KeptEntries kept({.entries = 2, .bytes = 100}, clock);
  const auto other = std::make_shared<int>(0), first = std::make_shared<int>(1),
             second = std::make_shared<int>(2), third = std::make_shared<int>(3);
  EXPECT_TRUE(kept.Keep("other", {1, 9}, other, 100, seconds(1)).empty());
  EXPECT_TRUE(kept.Keep("a", {1, 1}, first, 60, seconds(9)).empty());
  EXPECT_TRUE(kept.Keep("a", {1, 2}, second, 30, seconds(5)).empty());
  const std::vector<KeptEntries::Entry> dropped = kept.Keep("a", {1, 3}, third, 30, seconds(7));
  ASSERT_EQ(dropped.size(), 1U);
  EXPECT_EQ(dropped.front(), second);
  EXPECT_EQ(kept.Keep("a", {1, 4}, second, 101, seconds(7)).size(), 1U);  // never fits
  EXPECT_EQ(kept.size(), 3U);
  kept.CheckInvariants();
}

TEST(KeptEntriesTest, RandomKeepingStaysWithinItsBoundsAndLosesNothing) {
  std::mt19937_64 random(maskkv::testing::Seed());
  ManualClock clock;
  KeptEntries kept({.entries = 4, .bytes = 1000}, clock);
  std::int64_t alive = 0;  // entries that somebody holds
  const auto make = [&] {
    ++alive;
    return std::shared_ptr<const void>(new int(0), [&](const int* entry) {
      --alive;
      delete entry;
    });
  };
  for (int i = 0; i < 50'000; ++i) {
    if (random() % 4 == 0) {
      clock.Advance(milliseconds(random() % 500));
      (void)kept.Expire();
    } else {
      (void)kept.Keep(std::string(1, static_cast<char>('a' + random() % 3)), {1, random() % 8},
                      make(), random() % 600, milliseconds(random() % 2000));
    }
    kept.CheckInvariants();
    ASSERT_EQ(alive, static_cast<std::int64_t>(kept.size()));
  }
  clock.Advance(seconds(10));
  (void)kept.Expire();
  EXPECT_EQ(alive, 0);
}

class ReuseTest : public ::testing::Test {
 protected:
  ReuseTest() {
    entry_.masks = 8;
    entry_.prompt_tokens = static_cast<std::int64_t>(prompt_.size());
    entry_.prompt_digest = arena::TokenDigest(prompt_);
    entry_.document_tokens = 3;
    entry_.document_digest = arena::TokenDigest(std::span(prompt_).first(3));
  }
  // Positions that serve, or -1 for every pair.
  std::int64_t Serves(const std::vector<std::int32_t>& ids,
                      const std::vector<std::int32_t>& suffix = {}, std::int64_t tail = 0) {
    const absl::StatusOr<services::Reusable> reusable =
        services::ReusablePairs(entry_, ids, suffix, 8, std::ssize(ids) - tail);
    EXPECT_TRUE(reusable.ok()) << reusable.status();
    return reusable->whole ? -1 : reusable->positions;
  }
  std::string ReasonFor(const std::vector<std::int32_t>& ids, std::int64_t gen_length = 8) {
    const auto servable = static_cast<std::int64_t>(ids.size());
    const absl::Status status =
        services::ReusablePairs(entry_, ids, {}, gen_length, servable).status();
    EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kFailedPrecondition);
    if (!status.ok()) {
      EXPECT_EQ(services::DocumentPositions(entry_, ids, gen_length, servable).status(), status);
    }
    return ErrorReason(status);
  }

  std::vector<std::int32_t> prompt_{1, 2, 3, 4, 5};
  arena::EntryMetadata entry_;
};

TEST_F(ReuseTest, TheSamePromptUsesEveryPairAndTheSameDocumentItsOwn) {
  const std::vector<std::int32_t> other{1, 2, 3, 9}, bare{1, 2, 3};
  EXPECT_EQ(Serves(prompt_), -1);
  EXPECT_EQ(Serves(other), 3);
  EXPECT_EQ(Serves(bare), 3);
  EXPECT_EQ(*services::DocumentPositions(entry_, prompt_, 8, 5), 3);
  EXPECT_EQ(*services::DocumentPositions(entry_, other, 8, 4), 3);
}

TEST_F(ReuseTest, APromptOnBothSidesUsesEveryPairOnlyIfBothSidesAreTheSame) {
  const std::vector<std::int32_t> suffix{6, 7};
  EXPECT_EQ(Serves(prompt_, suffix), 3);
  entry_.suffix_tokens = 2;
  entry_.suffix_digest = arena::TokenDigest(suffix);
  EXPECT_EQ(Serves(prompt_, suffix), -1);
  EXPECT_EQ(Serves(prompt_, {6, 8}), 3);
  EXPECT_EQ(Serves(prompt_, {6}), 3);
  EXPECT_EQ(Serves(prompt_), 3);
  EXPECT_EQ(Serves({1, 2, 3}, suffix), 3);
}

TEST_F(ReuseTest, NoPromptsTailIsServed) {
  const std::vector<std::int32_t> bare{1, 2, 3};
  EXPECT_EQ(Serves(prompt_, {}, 1), -1) << "every pair that there is";
  EXPECT_EQ(Serves(bare, {}, 1), 2) << "ours";
  EXPECT_EQ(*services::DocumentPositions(entry_, bare, 8, 2), 2);
  entry_.prompt_tokens = 3;
  const std::vector<std::int32_t> other{1, 2, 3, 9};
  EXPECT_EQ(*services::DocumentPositions(entry_, other, 8, 3), 2) << "the entry's";
}

TEST_F(ReuseTest, AnotherDocumentLengthOrNumberOfMasksIsAMismatch) {
  EXPECT_EQ(ReasonFor({1, 2, 7, 4, 5}), "HANDLE_PROMPT_MISMATCH");
  EXPECT_EQ(ReasonFor({1, 2}), "HANDLE_PROMPT_MISMATCH");
  EXPECT_EQ(ReasonFor({}), "HANDLE_PROMPT_MISMATCH");
  EXPECT_EQ(ReasonFor(prompt_, 16), "HANDLE_PROMPT_MISMATCH");
  entry_.document_tokens = 0;
  EXPECT_EQ(ReasonFor({1, 2, 3, 9}), "HANDLE_PROMPT_MISMATCH");
  EXPECT_EQ(ReasonFor(prompt_), "");
  EXPECT_EQ(ErrorReason(services::DocumentPositions(entry_, prompt_, 8, 5).status()),
            "HANDLE_PROMPT_MISMATCH");
}

}  // namespace
}  // namespace maskkv::decode
