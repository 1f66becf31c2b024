// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/onednn_tile.h"

#include <array>

#include "kernels/base/require.h"

namespace maskkv::kernels {
namespace {

using dnnl::memory;

// Of x, of w and of y.
struct Types {
  memory::data_type x, w, y;
};

Types TypesOf(DType dtype) {
  using Type = memory::data_type;
  switch (dtype) {
    case DType::kBF16:
      return {Type::bf16, Type::bf16, Type::f32};
    case DType::kInt8:
      return {Type::u8, Type::s8, Type::s32};
    case DType::kF32:
      break;
  }
  return {Type::f32, Type::f32, Type::f32};
}

dnnl::primitive_attr UserScratchpad() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

// A oneDNN engine is a handle of the processor: it holds no state of ours.
const dnnl::engine& Processor() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

void RequireSuccess(dnnl_status_t status) {
  MASKKV_REQUIRE(status == dnnl_success, "a oneDNN primitive failed to run");
}

class OneDnnTile final : public TileKernel {
 public:
  OneDnnTile(const dnnl::matmul::primitive_desc& desc, const TileShape& shape)
      : desc_(desc),
        matmul_(desc),
        shape_(shape),
        scratch_bytes_(static_cast<std::int64_t>(desc.scratchpad_desc().get_size())) {}

  std::size_t packed_bytes() const override { return desc_.weights_desc().get_size(); }
  std::string WeightsLayout() const override;
  void PackWeights(const void* w, std::int64_t ldw, void* packed,
                   TileRunner& runner) const override;
  void Run(const void* x, const void* packed, void* y, TileRunner& runner) const override;

 private:
  TileRunner::Arguments& ArgumentsIn(TileRunner& runner) const;

  const dnnl::matmul::primitive_desc desc_;
  const dnnl::matmul matmul_;
  const TileShape shape_;
  const std::int64_t scratch_bytes_;
};

std::string OneDnnTile::WeightsLayout() const {
  const dnnl_memory_desc_t& desc = desc_.weights_desc().data;
  MASKKV_REQUIRE(desc.format_kind == dnnl_blocked, "weights in a layout that has no blocks");
  std::string text;
  const auto add = [&](std::int64_t value) { text += std::to_string(value) + ','; };
  add(desc.data_type);
  add(desc.offset0);
  for (int i = 0; i < desc.ndims; ++i) {
    add(desc.dims[i]);
    add(desc.padded_dims[i]);
    add(desc.padded_offsets[i]);
    add(desc.format_desc.blocking.strides[i]);
  }
  text += "blocks,";
  for (int i = 0; i < desc.format_desc.blocking.inner_nblks; ++i) {
    add(desc.format_desc.blocking.inner_idxs[i]);
    add(desc.format_desc.blocking.inner_blks[i]);
  }
  text += "extra,";
  add(static_cast<std::int64_t>(desc.extra.flags));
  add(desc.extra.compensation_mask);
  add(desc.extra.asymm_compensation_mask);
  return text;
}

void OneDnnTile::PackWeights(const void* w, std::int64_t ldw, void* packed,
                             TileRunner& runner) const {
  const memory::desc stored({shape_.k, shape_.n}, TypesOf(shape_.dtype).w, memory::dims{1, ldw});
  memory from(stored, Processor(), const_cast<void*>(w));  // oneDNN takes no pointer to const
  memory to(desc_.weights_desc(), Processor(), packed);
  dnnl::reorder(from, to).execute(runner.stream(), from, to);
}

void OneDnnTile::Run(const void* x, const void* packed, void* y, TileRunner& runner) const {
  TileRunner::Arguments& arguments = ArgumentsIn(runner);
  arguments.x.set_data_handle(const_cast<void*>(x));
  arguments.weights.set_data_handle(const_cast<void*>(packed));
  arguments.y.set_data_handle(y);
  arguments.scratch.set_data_handle(runner.Scratch(scratch_bytes_));
  const std::array<dnnl_exec_arg_t, 4> list{{{DNNL_ARG_SRC, arguments.x.get()},
                                             {DNNL_ARG_WEIGHTS, arguments.weights.get()},
                                             {DNNL_ARG_DST, arguments.y.get()},
                                             {DNNL_ARG_SCRATCHPAD, arguments.scratch.get()}}};
  RequireSuccess(dnnl_primitive_execute(matmul_.get(), runner.stream().get(),
                                        static_cast<int>(list.size()), list.data()));
}

TileRunner::Arguments& OneDnnTile::ArgumentsIn(TileRunner& runner) const {
  const auto found = runner.arguments().find(this);
  if (found != runner.arguments().end()) return found->second;
  const dnnl::engine& engine = Processor();
  TileRunner::Arguments arguments{memory(desc_.src_desc(), engine, DNNL_MEMORY_NONE),
                                  memory(desc_.weights_desc(), engine, DNNL_MEMORY_NONE),
                                  memory(desc_.dst_desc(), engine, DNNL_MEMORY_NONE),
                                  memory(desc_.scratchpad_desc(), engine, DNNL_MEMORY_NONE)};
  return runner.arguments().emplace(this, std::move(arguments)).first->second;
}

}  // namespace

TileRunner::TileRunner() : stream_(Processor()) {}

std::unique_ptr<const TileKernel> MakeOneDnnTile(const TileShape& shape) try {
  const Types types = TypesOf(shape.dtype);
  const memory::desc x({shape.rows, shape.k}, types.x, memory::dims{shape.ldx, 1});
  const memory::desc w({shape.k, shape.n}, types.w, memory::format_tag::any);
  const memory::desc y({shape.rows, shape.n}, types.y, memory::dims{shape.ldy, 1});
  const dnnl::matmul::primitive_desc desc({x, w, y}, UserScratchpad(), Processor());
  return std::make_unique<const OneDnnTile>(desc, shape);
} catch (const dnnl::error& error) {
  if (error.status == dnnl_out_of_memory) throw std::bad_alloc();
  return nullptr;
}

}  // namespace maskkv::kernels
