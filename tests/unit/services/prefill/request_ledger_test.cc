// SPDX-License-Identifier: Apache-2.0
#include "services/prefill/request_ledger.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "core/base/error.h"
#include "maskkv/v1/prefill.pb.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::prefill::request_ledger_test {
namespace {

using Step = RequestLedger::Step;
using Next = RequestLedger::Next;

arena::Digest DigestOf(int value) {
  arena::Digest digest{};
  digest[0] = static_cast<std::byte>(value);
  return digest;
}

Answer AnswerOf(std::int64_t value) {
  auto answer = std::make_shared<v1::PrefillResponse>();
  answer->set_prompt_tokens(value);
  return answer;
}

class RequestLedgerTest : public ::testing::Test {
 protected:
  ManualClock clock_;
  RequestLedger ledger_{{.remember = std::chrono::seconds(60), .max_remembered = 3}, clock_};

  Next Enter(const std::string& tenant, const std::string& id, int digest = 0) {
    const absl::StatusOr<Next> next = ledger_.Enter(tenant, id, DigestOf(digest));
    EXPECT_TRUE(next.ok()) << next.status();
    ledger_.CheckInvariants();
    return next.value_or(Next{});
  }
};

TEST_F(RequestLedgerTest, AnAnswerIsGivenAgainForTheSameId) {
  const Next first = Enter("a", "1");
  ASSERT_EQ(first.step, Step::kRun);
  const Answer answer = AnswerOf(7);
  ledger_.Finish(first.run, answer);
  const Next again = Enter("a", "1");
  EXPECT_EQ(again.step, Step::kDone);
  EXPECT_TRUE(again.answer == answer);          // the same object
  EXPECT_EQ(Enter("b", "1").step, Step::kRun);  // another tenant's id is another id
}

TEST_F(RequestLedgerTest, AnotherRequestUnderAKnownIdIsRefused) {
  const Next first = Enter("a", "1", 1);
  for (int round = 0; round < 2; ++round) {
    const absl::Status status = ledger_.Enter("a", "1", DigestOf(2)).status();
    EXPECT_TRUE(absl::IsAlreadyExists(status));
    EXPECT_EQ(ErrorReason(status), "REQUEST_ID_REUSED");
    if (round == 0) ledger_.Finish(first.run, AnswerOf(1));
  }
}

TEST_F(RequestLedgerTest, WhoComesWhileItRunsGetsTheSameAnswer) {
  const Next first = Enter("a", "1");
  const Next joined = Enter("a", "1");
  ASSERT_EQ(joined.step, Step::kWait);
  EXPECT_EQ(ledger_.Look(joined.run)->step, Step::kWait);
  ledger_.Finish(first.run, AnswerOf(7));
  const absl::StatusOr<Next> done = ledger_.Look(joined.run);
  ASSERT_THAT(done, testing::IsOk());
  EXPECT_EQ(done->step, Step::kDone);
  EXPECT_EQ(done->answer->prompt_tokens(), 7);
  ledger_.CheckInvariants();
}

TEST_F(RequestLedgerTest, AFailureReachesThoseThatJoinedAndIsForgotten) {
  const Next first = Enter("a", "1");
  const Next joined = Enter("a", "1");
  ledger_.Fail(first.run, absl::DataLossError("NaN"));
  const Next anew = Enter("a", "1");
  EXPECT_EQ(anew.step, Step::kRun);
  EXPECT_TRUE(absl::IsDataLoss(ledger_.Look(joined.run).status()));
  ledger_.CheckInvariants();
  EXPECT_EQ(ledger_.runs(), 1U);
}

TEST_F(RequestLedgerTest, OneThatJoinedTakesOverFromACancelledRunner) {
  const Next first = Enter("a", "1");
  const Next second = Enter("a", "1");
  const Next third = Enter("a", "1");
  ledger_.Abandon(first.run);
  ledger_.CheckInvariants();
  EXPECT_EQ(ledger_.Look(third.run)->step, Step::kRun);
  EXPECT_EQ(ledger_.Look(second.run)->step, Step::kWait);
  ledger_.Finish(third.run, AnswerOf(3));
  EXPECT_EQ(ledger_.Look(second.run)->answer->prompt_tokens(), 3);
  ledger_.CheckInvariants();
}

TEST_F(RequestLedgerTest, ARunThatNobodyWantsIsForgotten) {
  const Next first = Enter("a", "1");
  const Next joined = Enter("a", "1");
  ledger_.Abandon(first.run);
  ledger_.Leave(joined.run);
  EXPECT_EQ(ledger_.runs(), 0U);
  EXPECT_EQ(Enter("a", "1", 5).step, Step::kRun);  // even with another request
}

TEST_F(RequestLedgerTest, AnswersAreForgottenAfterTheirTimeAndTheOldestFirst) {
  for (int i = 0; i < 4; ++i) {
    ledger_.Finish(Enter("a", std::to_string(i)).run, AnswerOf(i));
    clock_.Advance(std::chrono::seconds(10));
  }
  EXPECT_EQ(ledger_.remembered(), 3U);
  EXPECT_EQ(Enter("a", "0").step, Step::kRun);
  EXPECT_EQ(Enter("a", "1").step, Step::kDone);
  clock_.Advance(std::chrono::seconds(30));  // 60 since the second one
  EXPECT_EQ(Enter("a", "1").step, Step::kRun);
  EXPECT_EQ(Enter("a", "2").step, Step::kDone);
}

TEST_F(RequestLedgerTest, AnAnswerThatIsUselessIsForgottenUnlessItIsAnotherOneByNow) {
  const Answer old = AnswerOf(1);
  ledger_.Finish(Enter("a", "1").run, old);
  ledger_.Forget("a", "1", AnswerOf(1));
  EXPECT_EQ(Enter("a", "1").step, Step::kDone);
  ledger_.Forget("a", "1", old);
  EXPECT_EQ(Enter("a", "1").step, Step::kRun);
  ledger_.CheckInvariants();
}

// Callers do random things at random times. Of an id and its digest: at most one runs, everybody
// that joined gets the outcome of a run that was under way while they waited.
TEST_F(RequestLedgerTest, OneRunAtATimeOverRandomCallers) {
  struct Caller {
    std::string id;
    RunId run = 0;
    bool runs = false;
  };
  std::mt19937_64 random(testing::Seed());
  std::map<int, Caller> callers;
  std::map<std::string, int> runners;  // who runs an id
  std::map<std::string, std::int64_t> last_answer;
  std::int64_t answers = 0, taken_over = 0, shared = 0, failed = 0;
  int next_caller = 0;
  for (int i = 0; i < 100'000; ++i) {
    clock_.Advance(std::chrono::milliseconds(random() % 2000));
    if (callers.size() < 12 && random() % 2 == 0) {
      const std::string id = std::to_string(random() % 5);
      const Next next = Enter("t", id);
      if (next.step == Step::kDone) {
        EXPECT_EQ(next.answer->prompt_tokens(), last_answer.at(id));
        continue;
      }
      const bool runs = next.step == Step::kRun;
      EXPECT_EQ(runners.contains(id), !runs);
      if (runs) runners[id] = next_caller;
      callers[next_caller++] = {id, next.run, runs};
      continue;
    }
    if (callers.empty()) continue;
    auto at = callers.begin();
    std::advance(at, static_cast<std::ptrdiff_t>(random() % callers.size()));
    const auto [name, caller] = *at;
    if (caller.runs) {
      runners.erase(caller.id);
      switch (random() % 3) {
        case 0:
          last_answer[caller.id] = ++answers;
          ledger_.Finish(caller.run, AnswerOf(answers));
          break;
        case 1:
          ledger_.Fail(caller.run, absl::InternalError(caller.id));
          break;
        default:
          ledger_.Abandon(caller.run);
      }
      callers.erase(at);
    } else if (random() % 4 == 0) {
      ledger_.Leave(caller.run);
      callers.erase(at);
    } else {
      const absl::StatusOr<Next> next = ledger_.Look(caller.run);
      if (!next.ok()) {
        EXPECT_EQ(next.status().message(), caller.id);
        ++failed;
        callers.erase(at);
      } else if (next->step == Step::kDone) {
        EXPECT_LE(next->answer->prompt_tokens(), answers);
        ++shared;
        callers.erase(at);
      } else if (next->step == Step::kRun) {
        EXPECT_FALSE(runners.contains(caller.id));
        runners[caller.id] = name;
        at->second.runs = true;
        ++taken_over;
      }
    }
    ledger_.CheckInvariants();
    ASSERT_LE(ledger_.runs(), 5U + 12U);
  }
  EXPECT_GT(taken_over, 100);
  EXPECT_GT(shared, 100);
  EXPECT_GT(failed, 100);
}

}  // namespace
}  // namespace maskkv::prefill::request_ledger_test
