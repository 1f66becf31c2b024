// SPDX-License-Identifier: Apache-2.0
//
// On which NUMA nodes a thread's memory comes to lie: the kernel places a page where the policy of
// the thread that touches it first says. That holds for the heap and for the page cache of files
// that the thread reads or writes. Pages that are there already stay. libnuma underneath.
#ifndef MASKKV_KERNELS_PARALLEL_MEMORY_POLICY_H_
#define MASKKV_KERNELS_PARALLEL_MEMORY_POLICY_H_

#include <array>
#include <cstdint>
#include <vector>

namespace maskkv::kernels {

enum class MemoryPolicy : std::uint8_t {
  kNone,        // what the process was started with; no system call is made
  kInterleave,  // page by page over `nodes`
  kLocal,       // the node of the CPU that the thread runs on, whatever it was started with
};

struct MemoryPlacement {
  MemoryPolicy policy = MemoryPolicy::kNone;
  std::vector<int> nodes{};  // of kInterleave, at least one, each in [0, kMostNodes)
};

inline constexpr int kMostNodes = 1024;

// The calling thread's policy while it lives; the one before it comes back afterwards. Create and
// destroy it on one thread; scopes nest.
class ScopedMemoryPolicy {
 public:
  explicit ScopedMemoryPolicy(const MemoryPlacement& placement);
  ~ScopedMemoryPolicy();
  ScopedMemoryPolicy(const ScopedMemoryPolicy&) = delete;
  ScopedMemoryPolicy& operator=(const ScopedMemoryPolicy&) = delete;

  // 0, or why the system refused (an errno): then nothing has changed. Containers may forbid it
  // (EPERM), kernels may be built without it (ENOSYS).
  int error() const { return error_; }

 private:
  using NodeMask = std::array<unsigned long, kMostNodes / (8 * sizeof(unsigned long))>;

  bool set_ = false;
  int error_ = 0;
  int mode_before_ = 0;
  NodeMask nodes_before_{};
};

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_PARALLEL_MEMORY_POLICY_H_
