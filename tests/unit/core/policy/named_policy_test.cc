// SPDX-License-Identifier: Apache-2.0
#include "core/policy/named_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/support/status_matchers.h"

namespace maskkv::policy::named_policy_test {
namespace {

using ::maskkv::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(NamedPolicy, EveryNameIsItsOwnCanonicalForm) {
  std::set<std::string> seen;
  for (const std::string& name : PolicyNames()) {
    MASKKV_ASSERT_OK_AND_ASSIGN(const PolicyParts parts, ParsePolicy(name));
    EXPECT_EQ(PolicyName(parts), name);
    EXPECT_EQ(PolicyLabel(parts), name);
    EXPECT_TRUE(CheckParts(parts).ok());
    EXPECT_TRUE(seen.insert(name).second) << name;
  }
  EXPECT_EQ(seen.size(), 20U);
}

TEST(NamedPolicy, PartsOfSomeNames) {
  const auto is = [](const char* name, Voters voters, LayerRule layers, HeadRule heads) {
    MASKKV_ASSERT_OK_AND_ASSIGN(const PolicyParts parts, ParsePolicy(name));
    EXPECT_EQ(parts, (PolicyParts{voters, layers, heads})) << name;
  };
  is("maskkv", Voters::kMasks, LayerRule::kOffline, HeadRule::kPreference);
  is("maskkv-third", Voters::kMasksThird, LayerRule::kOffline, HeadRule::kPreference);
  is("snapkv", Voters::kWindow, LayerRule::kUniform, HeadRule::kUniform);
  is("pyramidkv", Voters::kWindow, LayerRule::kPyramid, HeadRule::kUniform);
  is("squeeze", Voters::kWindow, LayerRule::kSqueeze, HeadRule::kUniform);
  is("adakv", Voters::kWindow, LayerRule::kUniform, HeadRule::kAdaKv);
  is("maskkv-pool", Voters::kMasks, LayerRule::kPool, HeadRule::kPool);
}

TEST(NamedPolicy, ATripleOfANamedOneHasThatName) {
  MASKKV_ASSERT_OK_AND_ASSIGN(const PolicyParts named, ParsePolicy("window/uniform/uniform"));
  EXPECT_EQ(PolicyName(named), "snapkv");
  MASKKV_ASSERT_OK_AND_ASSIGN(const PolicyParts other, ParsePolicy("masks/pyramid/adakv"));
  EXPECT_EQ(PolicyName(other), "masks/pyramid/adakv");
  EXPECT_EQ(PolicyLabel(other), "custom");
  MASKKV_ASSERT_OK_AND_ASSIGN(const PolicyParts full, ParsePolicy("full/pool/adakv"));
  EXPECT_EQ(PolicyName(full), "full");
  const PolicyParts weights{Voters::kMasks, LayerRule::kWeights, HeadRule::kPreference};
  EXPECT_EQ(PolicyName(weights), "masks/weights/preference");
  EXPECT_EQ(PolicyLabel(weights), "custom");
}

TEST(NamedPolicy, UnknownNamesSayWhatIsExpected) {
  EXPECT_THAT(ParsePolicy("h2o"),
              StatusIs(kInvalid, AllOf(HasSubstr("maskkv, "), HasSubstr("full"),
                                       HasSubstr("VOTERS/LAYERS/HEADS"), HasSubstr("\"h2o\""))));
  EXPECT_THAT(ParsePolicy(""), StatusIs(kInvalid, HasSubstr("found \"\"")));
  EXPECT_THAT(ParsePolicy("Maskkv"), StatusIs(kInvalid, HasSubstr("expected one of")));
  EXPECT_THAT(ParsePolicy("x/uniform/uniform"),
              StatusIs(kInvalid, AllOf(HasSubstr("voters"), HasSubstr("masks-front"))));
  EXPECT_THAT(ParsePolicy("masks/weights/uniform"),
              StatusIs(kInvalid, AllOf(HasSubstr("layers"), HasSubstr("pyramid"))));
  EXPECT_THAT(ParsePolicy("masks/uniform/"),
              StatusIs(kInvalid, AllOf(HasSubstr("heads"), HasSubstr("adakv"))));
  EXPECT_THAT(ParsePolicy("masks/uniform/uniform/uniform"),
              StatusIs(kInvalid, HasSubstr("VOTERS/LAYERS/HEADS")));
  // One line, whatever was asked.
  EXPECT_THAT(ParsePolicy("a\nb" + std::string(1000, 'x')),
              StatusIs(kInvalid, AllOf(HasSubstr("a?b"), Not(HasSubstr(std::string(100, 'x'))))));
}

TEST(NamedPolicy, PartsThatDoNotGoTogether) {
  EXPECT_THAT(ParsePolicy("recent/uniform/adakv"), StatusIs(kInvalid, HasSubstr("recent")));
  EXPECT_THAT(ParsePolicy("random/uniform/preference"), StatusIs(kInvalid, HasSubstr("random")));
  EXPECT_THAT(ParsePolicy("masks/pool/uniform"), StatusIs(kInvalid, HasSubstr("layers pool")));
  EXPECT_THAT(ParsePolicy("window/pool/pool"), StatusIs(kInvalid, HasSubstr("window")));
  EXPECT_THAT(ParsePolicy("recent/pool/pool"), StatusIs(kInvalid, HasSubstr("recent")));
  EXPECT_TRUE(ParsePolicy("random/pyramid/uniform").ok());
  EXPECT_TRUE(ParsePolicy("prompt/pool/pool").ok());
}

}  // namespace
}  // namespace maskkv::policy::named_policy_test
