// SPDX-License-Identifier: Apache-2.0
#include "kernels/parallel/memory_policy.h"

#include <numaif.h>

#include <cerrno>

#include "kernels/base/require.h"

namespace maskkv::kernels {
namespace {

constexpr int kBits = 8 * sizeof(unsigned long);
// The system calls want one more than there are bits.
constexpr unsigned long kMaskSize = kMostNodes + 1;

}  // namespace

ScopedMemoryPolicy::ScopedMemoryPolicy(const MemoryPlacement& placement) {
  if (placement.policy == MemoryPolicy::kNone) return;
  NodeMask nodes{};
  if (placement.policy == MemoryPolicy::kInterleave) {
    MASKKV_REQUIRE(!placement.nodes.empty(), "interleaving needs a node");
    for (const int node : placement.nodes) {
      MASKKV_REQUIRE(node >= 0 && node < kMostNodes, "NUMA node number");
      nodes[static_cast<std::size_t>(node / kBits)] |= 1UL << (node % kBits);
    }
  }
  const int mode = placement.policy == MemoryPolicy::kInterleave ? MPOL_INTERLEAVE : MPOL_LOCAL;
  set_ = ::get_mempolicy(&mode_before_, nodes_before_.data(), kMaskSize, nullptr, 0) == 0 &&
         ::set_mempolicy(mode, nodes.data(), kMaskSize) == 0;
  if (!set_) error_ = errno;
}

ScopedMemoryPolicy::~ScopedMemoryPolicy() {
  if (set_) ::set_mempolicy(mode_before_, nodes_before_.data(), kMaskSize);
}

}  // namespace maskkv::kernels
