// SPDX-License-Identifier: Apache-2.0
#include "core/arena/descriptor_message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "core/base/error.h"
#include "tests/support/seed.h"
#include "tests/support/status_matchers.h"

namespace maskkv::arena {
namespace {

using maskkv::testing::IsOk;

template <typename Id>
Id Filled(int value) {
  Id id;
  id.bytes.fill(static_cast<std::byte>(value));
  return id;
}

std::vector<DescriptorRequest> Requests() {
  return {{MessageType::kHello, 1, 0x1122334455667788, 0, 0, {}},
          {MessageType::kWrite, 2, 0, 77, 99, {}},
          {MessageType::kRead, 3, 0, 0, 0, Filled<LeaseId>(5)}};
}

std::vector<DescriptorReply> Replies() {
  return {{MessageType::kHello, 1, 0, "", Filled<SessionToken>(7), 5, 6, 0},
          {MessageType::kRead, 2, 0, "", {}, 0, 0, 4096},
          {MessageType::kWrite, 3, 5, "HANDLE_UNKNOWN", {}, 0, 0, 0}};
}

TEST(DescriptorMessage, WhatIsEncodedIsDecoded) {
  for (const DescriptorRequest& request : Requests()) {
    MASKKV_ASSERT_OK_AND_ASSIGN(const DescriptorRequest again, DecodeRequest(Encode(request)));
    EXPECT_EQ(again, request);
  }
  for (const DescriptorReply& reply : Replies()) {
    MASKKV_ASSERT_OK_AND_ASSIGN(const DescriptorReply again, DecodeReply(Encode(reply)));
    EXPECT_EQ(again, reply);
  }
}

TEST(DescriptorMessage, BytesAreThoseOfTheDocument) {
  const MessageBytes hello = Encode(Requests()[0]);
  const unsigned char expected[24] = {'M',  'V',  'K',  'S',  1,    0,    1,    0,
                                      1,    0,    0,    0,    0,    0,    0,    0,
                                      0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
  EXPECT_EQ(std::memcmp(hello.data(), expected, sizeof expected), 0);
  const MessageBytes write = Encode(Requests()[1]);
  EXPECT_EQ(write[24], std::byte{77});
  EXPECT_EQ(write[32], std::byte{99});
  EXPECT_EQ(Encode(Requests()[2])[40], std::byte{5});
  EXPECT_EQ(Encode(Replies()[0])[16], std::byte{7});
  EXPECT_EQ(Encode(Replies()[0])[32], std::byte{5});
  EXPECT_EQ(Encode(Replies()[1])[49], std::byte{0x10});  // 4096 at 48
  EXPECT_EQ(Encode(Replies()[2])[12], std::byte{5});
  EXPECT_EQ(Encode(Replies()[2])[16], std::byte{'H'});
}

TEST(DescriptorMessage, EveryOtherSizeIsRefused) {
  std::vector<std::byte> bytes(200);
  const MessageBytes hello = Encode(Requests()[0]);
  std::memcpy(bytes.data(), hello.data(), hello.size());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(DecodeRequest(std::span(bytes).first(size)).ok(), size == kMessageBytes) << size;
  }
}

// Fields that a type does not use, magic, version and type have one value each.
TEST(DescriptorMessage, EveryBitOfARequestIsAFieldsOrRefused) {
  for (const DescriptorRequest& request : Requests()) {
    const MessageBytes right = Encode(request);
    for (std::size_t bit = 0; bit < 8 * right.size(); ++bit) {
      MessageBytes bytes = right;
      bytes[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
      const auto decoded = DecodeRequest(bytes);
      if (decoded.ok()) {
        EXPECT_EQ(Encode(*decoded), bytes) << bit;
      } else {
        EXPECT_EQ(ErrorReason(decoded.status()), "BAD_MESSAGE");
      }
    }
  }
}

TEST(DescriptorMessage, RepliesOfNoisesAreAnErrorOrAreEncodedTheSame) {
  std::mt19937_64 random(maskkv::testing::Seed());
  for (int i = 0; i < 20'000; ++i) {
    MessageBytes bytes = Encode(Replies()[static_cast<std::size_t>(random() % 3)]);
    for (std::uint64_t n = random() % 4; n > 0; --n) {
      bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    }
    const auto decoded = DecodeReply(bytes);
    if (!decoded.ok()) continue;
    const auto again = DecodeReply(Encode(*decoded));
    ASSERT_THAT(again, IsOk());
    EXPECT_EQ(*again, *decoded);
  }
}

TEST(DescriptorMessage, ALongReasonIsCut) {
  DescriptorReply reply;
  reply.code = 3;
  reply.reason = std::string(60, 'A');
  MASKKV_ASSERT_OK_AND_ASSIGN(const DescriptorReply again, DecodeReply(Encode(reply)));
  EXPECT_EQ(again.reason, std::string(48, 'A'));
}

}  // namespace
}  // namespace maskkv::arena
