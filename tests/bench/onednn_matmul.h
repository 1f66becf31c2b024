// SPDX-License-Identifier: Apache-2.0
//
// One oneDNN matmul primitive alone, as the bound that benches compare with: weights packed for the
// very shape, inputs already in the computing type, output contiguous, OpenMP's own team
// (omp_set_num_threads). Random values. int8 is unsigned by signed bytes into s32. Not thread safe.
#ifndef MASKKV_TESTS_BENCH_ONEDNN_MATMUL_H_
#define MASKKV_TESTS_BENCH_ONEDNN_MATMUL_H_

#include <cstddef>
#include <cstdint>
#include <oneapi/dnnl/dnnl.hpp>
#include <random>
#include <vector>

#include "kernels/base/aligned_buffer.h"
#include "kernels/base/dtype.h"

namespace maskkv::kernels {

// What oneDNN takes a product of `dtype` in on this machine: f32 for bf16 where it has none of bf16
// (below AVX-512), which is then the best that it offers.
inline DType OneDnnType(DType dtype) {
  if (dtype != DType::kBF16) return dtype;
  using Memory = dnnl::memory;
  const auto shape = [](Memory::data_type type) {
    return Memory::desc({16, 16}, type, Memory::format_tag::ab);
  };
  try {
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    const dnnl::matmul::primitive_desc desc(
        {shape(Memory::data_type::bf16), shape(Memory::data_type::bf16),
         shape(Memory::data_type::f32)},
        engine);
    return dtype;
  } catch (const dnnl::error&) {
    return DType::kF32;
  }
}

class OneDnnMatMul {
 public:
  // One matrix's weights as some product likes them, in huge pages as the engine's are.
  struct Laid {
    AlignedBuffer<std::byte> bytes;
    dnnl::memory memory;
  };
  using Layouts = std::vector<Laid>;

  // REQUIRES: OneDnnType(dtype) == dtype.
  OneDnnMatMul(std::int64_t rows, std::int64_t in, std::int64_t out, DType dtype) {
    Make(rows, in, out, dtype, own_);
  }

  // With the weights of `layouts` if they hold the layout that this product likes, else with new
  // ones, which are added to them. REQUIRES: they are of a matrix (in, out) of this dtype, and
  // outlive this.
  OneDnnMatMul(std::int64_t rows, std::int64_t in, std::int64_t out, DType dtype,
               Layouts& layouts) {
    Make(rows, in, out, dtype, layouts);
  }

  void Run() {
    matmul_.execute(stream_, {{DNNL_ARG_SRC, x_}, {DNNL_ARG_WEIGHTS, w_}, {DNNL_ARG_DST, y_}});
    stream_.wait();
  }

 private:
  void Make(std::int64_t rows, std::int64_t in, std::int64_t out, DType dtype, Layouts& layouts) {
    using Memory = dnnl::memory;
    using Type = Memory::data_type;
    const bool bytes = dtype == DType::kInt8;
    const float largest = bytes ? 127.0F : 1.0F;
    const Type w_type = bytes ? Type::s8 : dtype == DType::kBF16 ? Type::bf16 : Type::f32;
    const Memory::desc x({rows, in}, bytes ? Type::u8 : w_type, Memory::format_tag::ab);
    const Memory::desc w({in, out}, w_type, Memory::format_tag::any);
    const Memory::desc y({rows, out}, bytes ? Type::s32 : Type::f32, Memory::format_tag::ab);
    const dnnl::matmul::primitive_desc desc({x, w, y}, engine_);
    matmul_ = dnnl::matmul(desc);
    x_ = Memory(desc.src_desc(), engine_);
    y_ = Memory(desc.dst_desc(), engine_);
    Fill(rows * in, x, largest, x_);
    for (const Laid& laid : layouts) {
      if (laid.memory.get_desc() == desc.weights_desc()) w_ = laid.memory;
    }
    if (w_) return;
    Laid& laid = layouts.emplace_back();
    laid.bytes.Resize(static_cast<std::int64_t>(desc.weights_desc().get_size()));
    w_ = laid.memory = Memory(desc.weights_desc(), engine_, laid.bytes.data());
    Fill(in * out, {{in, out}, w_type, Memory::format_tag::ba}, largest, w_);
  }

  // Random values of the plain layout's shape, converted into `to`.
  void Fill(std::int64_t count, const dnnl::memory::desc& plain, float largest, dnnl::memory& to) {
    std::vector<float> values(static_cast<std::size_t>(count));
    std::minstd_rand random(1);
    std::uniform_real_distribution<float> uniform(-largest, largest);
    for (float& value : values) value = uniform(random);
    dnnl::memory from({plain.dims(), dnnl::memory::data_type::f32, dnnl::memory::format_tag::ab},
                      engine_, values.data());
    dnnl::reorder(from, to).execute(stream_, from, to);
    stream_.wait();
  }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  dnnl::matmul matmul_;
  Layouts own_;  // unless others' were given
  dnnl::memory x_, w_, y_;
};

}  // namespace maskkv::kernels

#endif  // MASKKV_TESTS_BENCH_ONEDNN_MATMUL_H_
