// SPDX-License-Identifier: Apache-2.0
//
// Weights and scratch memory: 64-byte aligned, uninitialised, keeps its capacity. From 2 MiB on it
// lies in huge pages where the system gives them, so that streaming it does not wait for page
// tables. Kernels take workspaces made of these from their caller, so that a decode step allocates
// nothing once the largest shape has been seen. Not thread safe; movable, not copyable.
#ifndef MASKKV_KERNELS_BASE_ALIGNED_BUFFER_H_
#define MASKKV_KERNELS_BASE_ALIGNED_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

namespace maskkv::kernels {

// Returns `bytes` of 64-byte aligned memory (throws std::bad_alloc), to be freed by AlignedFree.
void* AlignedAllocate(std::size_t bytes);
void AlignedFree(void* memory);

template <typename T>
class AlignedBuffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(std::int64_t size) { Resize(size); }
  AlignedBuffer(AlignedBuffer&& other) noexcept { Swap(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    AlignedBuffer moved(std::move(other));
    Swap(moved);
    return *this;
  }
  ~AlignedBuffer() { AlignedFree(data_); }

  // Makes size() == size. The contents are undefined afterwards if the buffer had to grow.
  void Resize(std::int64_t size) {
    if (size > capacity_) {
      AlignedFree(std::exchange(data_, nullptr));
      capacity_ = 0;
      data_ = static_cast<T*>(AlignedAllocate(static_cast<std::size_t>(size) * sizeof(T)));
      capacity_ = size;
    }
    size_ = size;
  }

  // Gives the memory back.
  void Clear() { *this = AlignedBuffer(); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::int64_t size() const { return size_; }
  std::int64_t capacity_bytes() const { return capacity_ * static_cast<std::int64_t>(sizeof(T)); }
  std::span<T> span() { return {data_, static_cast<std::size_t>(size_)}; }
  std::span<const T> span() const { return {data_, static_cast<std::size_t>(size_)}; }

 private:
  void Swap(AlignedBuffer& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
  }

  T* data_ = nullptr;
  std::int64_t size_ = 0;
  std::int64_t capacity_ = 0;
};

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_BASE_ALIGNED_BUFFER_H_
