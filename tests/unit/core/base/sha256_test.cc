// SPDX-License-Identifier: Apache-2.0
#include "core/base/sha256.h"

#include <gtest/gtest.h>

#include <string_view>

namespace maskkv {
namespace {

TEST(Sha256, IsTheStandardsExample) {  // FIPS 180-4, "abc"
  Sha256 hash;
  hash.Update(std::as_bytes(std::span(std::string_view("a"))));
  hash.Update({});
  hash.Update(std::as_bytes(std::span(std::string_view("bc"))));
  EXPECT_EQ(Hex(hash.Finish()), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256, PartsDoNotRunTogether) {
  Sha256 one, two;
  one.AddPart("ab");
  one.AddPart("c");
  two.AddPart("a");
  two.AddPart("bc");
  EXPECT_NE(one.Finish(), two.Finish());
}

}  // namespace
}  // namespace maskkv
