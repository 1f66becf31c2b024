// SPDX-License-Identifier: Apache-2.0
//
// For what another thread or process does soon.
#ifndef MASKKV_TESTS_SUPPORT_WAIT_UNTIL_H_
#define MASKKV_TESTS_SUPPORT_WAIT_UNTIL_H_

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <thread>

namespace maskkv::testing {

// Returns when it is so; a test that waits for a minute has failed.
inline void WaitUntil(const std::function<bool()>& so) {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!so()) {
    if (std::chrono::steady_clock::now() > give_up) {
      ADD_FAILURE() << "what was waited for did not come about within a minute";
      return;
    }
    std::this_thread::yield();
  }
}

}  // namespace maskkv::testing

#endif  // MASKKV_TESTS_SUPPORT_WAIT_UNTIL_H_
