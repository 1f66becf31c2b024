// SPDX-License-Identifier: Apache-2.0
//
// What a test's handler wrote before its call ended is there for the client that got the answer:
// the order goes through a socket and through libraries that ThreadSanitizer does not look into.
// Both sides call Handover() to make it visible: handlers on entry and at their end, clients before
// and after the call.
#ifndef MASKKV_TESTS_SUPPORT_HANDOVER_H_
#define MASKKV_TESTS_SUPPORT_HANDOVER_H_

#include <atomic>

namespace maskkv::testing {

inline void Handover() {
  static std::atomic<int> turns{0};
  turns.fetch_add(1, std::memory_order_acq_rel);
}

}  // namespace maskkv::testing

#endif  // MASKKV_TESTS_SUPPORT_HANDOVER_H_
