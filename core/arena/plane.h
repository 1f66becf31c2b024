// SPDX-License-Identifier: Apache-2.0
//
// Where the memory of entries comes from. A MemoryPlane gives one Region an entry, so that a
// descriptor exposes one entry and nothing else. The daemon owns regions; peers own mappings made
// of descriptors. A region's life: allocated (writable), sealed (immutable for every process, for
// ever), destroyed. Memory is never reused: what is freed is given back to the system.
//
// Two planes: memfd, for processes that share; heap, for one process (tests).
// tests/unit/core/arena/ plane_test.cc runs one contract over both. A plane of GPU memory fits
// without another interface: Allocate is cuMemCreate at its granularity; Share is
// cuMemExportToShareableHandle, a POSIX descriptor as well; Map(kRead) copies to the host what is
// to be validated; and because a device has no seals, Seal copies the used bytes into a second
// allocation that no writer ever had a descriptor of, which is why used_bytes and sealing are one
// call and a region may change its descriptor in it.
//
// Thread safety: a plane may be used by several threads; a region by one at a time.
#ifndef MASKKV_CORE_ARENA_PLANE_H_
#define MASKKV_CORE_ARENA_PLANE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/unique_fd.h"
#include "core/engine/kv.h"

namespace maskkv::arena {

enum class Access : std::uint8_t { kRead, kWrite };

// A range of addresses that is given back once. Movable; empty by default and after Reset.
class Mapping {
 public:
  Mapping() = default;
  Mapping(std::span<std::byte> memory, std::function<void()> unmap)
      : memory_(memory), unmap_(std::move(unmap)) {}
  Mapping(Mapping&& other) noexcept { *this = std::move(other); }
  Mapping& operator=(Mapping&& other) noexcept {
    if (this == &other) return *this;
    Reset();
    memory_ = std::exchange(other.memory_, {});
    unmap_ = std::exchange(other.unmap_, nullptr);
    return *this;
  }
  ~Mapping() { Reset(); }

  // Writing is right only if it was mapped with Access::kWrite.
  std::span<std::byte> memory() const { return memory_; }
  void Reset() {
    memory_ = {};
    if (auto unmap = std::exchange(unmap_, nullptr)) unmap();
  }

 private:
  std::span<std::byte> memory_;
  std::function<void()> unmap_;
};

class Region {
 public:
  virtual ~Region() = default;  // mappings and shared descriptors stay good

  // What it takes: a multiple of the plane's granularity.
  virtual std::uint64_t bytes() const = 0;
  virtual bool sealed() const = 0;

  // All of it, in this process. kWrite: zero filled at first. kRead: does not keep it from being
  // sealed. Errors: FAILED_PRECONDITION (SEALED) for kWrite once it is sealed; RESOURCE_EXHAUSTED.
  virtual absl::StatusOr<Mapping> Map(Access access) const = 0;

  // A descriptor to send to a peer, who uses MapDescriptor; the caller closes it. Writable until
  // the region is sealed. Errors: UNIMPLEMENTED (the heap has none), RESOURCE_EXHAUSTED.
  virtual absl::StatusOr<UniqueFd> Share() const = 0;

  // Gives back what lies behind used_bytes and makes the rest immutable; bytes() is used_bytes
  // rounded up afterwards. Errors: FAILED_PRECONDITION (STILL_MAPPED: somebody maps it writable,
  // nothing has changed, try again; SEALED: sealed before); INVALID_ARGUMENT for 0 or more than
  // bytes(). FAILED_PRECONDITION (NOT_SEALED): a peer has meddled with its size or seals; the
  // region is of no use any more.
  virtual absl::Status Seal(std::uint64_t used_bytes) = 0;
};

class MemoryPlane {
 public:
  virtual ~MemoryPlane() = default;

  virtual engine::MemoryKind memory() const = 0;
  virtual std::uint64_t granularity() const = 0;  // a power of two, at least kEntryPage

  // At least `bytes`, zero filled, present and charged to this process before it returns.
  // Errors: RESOURCE_EXHAUSTED (more than the machine has, or the system gives no more),
  // INVALID_ARGUMENT for 0. Whoever allocates bounds the sum: a system that is asked for more than
  // is free may kill processes instead of refusing.
  virtual absl::StatusOr<std::unique_ptr<Region>> Allocate(std::uint64_t bytes) = 0;
};

// One memfd a region: no peer can grow it, all can shrink or write it until it is sealed. `name` is
// what /proc shows.
std::unique_ptr<MemoryPlane> MakeMemfdPlane(std::string name = "maskkv-entry");
std::unique_ptr<MemoryPlane> MakeHeapPlane();

// Maps a received descriptor's first `bytes`. Never longer than the file: touching any byte of it
// cannot fault as long as nobody shrinks the file, which F_SEAL_SHRINK rules out (CheckSealed).
// Errors: INVALID_ARGUMENT (not a file, 0 bytes, or the file is shorter), RESOURCE_EXHAUSTED.
absl::StatusOr<Mapping> MapDescriptor(int descriptor, std::uint64_t bytes, Access access);

// OK if no process can write, shrink or grow the memory any more. Errors: FAILED_PRECONDITION
// (NOT_SEALED), also for a descriptor that cannot be sealed at all.
absl::Status CheckSealed(int descriptor);

}  // namespace maskkv::arena

#endif  // MASKKV_CORE_ARENA_PLANE_H_
