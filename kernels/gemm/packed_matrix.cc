// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/packed_matrix.h"

#include "kernels/base/require.h"
#include "kernels/gemm/panel_product.h"

namespace maskkv::kernels {
namespace {

std::int64_t RowsOf(std::span<const MatrixSource> parts) {
  std::int64_t rows = 0;
  for (const MatrixSource& part : parts) {
    MASKKV_REQUIRE(part.out >= 1, "an empty part");
    rows += part.out;
  }
  return rows;
}

}  // namespace

PackedMatrix::PackedMatrix() = default;
PackedMatrix::PackedMatrix(PackedMatrix&&) noexcept = default;
PackedMatrix& PackedMatrix::operator=(PackedMatrix&&) noexcept = default;
PackedMatrix::~PackedMatrix() = default;
PackedMatrix::PackedMatrix(std::unique_ptr<PanelProduct> product) : product_(std::move(product)) {}

PackedMatrix PackedMatrix::Pack(WorkerPool& pool, std::span<const MatrixSource> parts,
                                std::int64_t in, DType compute) {
  PackedMatrix matrix = Plan(pool, RowsOf(parts), in, compute);
  matrix.own_.Resize(matrix.bytes());
  matrix.PackInto(pool, parts, matrix.own_.data());
  return matrix;
}

PackedMatrix PackedMatrix::Plan(WorkerPool& pool, std::int64_t out, std::int64_t in,
                                DType compute) {
  return PackedMatrix(PanelProduct::Plan(pool, out, in, compute));
}

std::string PackedMatrix::Layout() const { return product_->Layout(); }

void PackedMatrix::PackInto(WorkerPool& pool, std::span<const MatrixSource> parts,
                            std::byte* packed) {
  MASKKV_REQUIRE(RowsOf(parts) == out(), "parts of other rows than planned");
  product_->Pack(pool, parts, packed);
}

void PackedMatrix::Borrow(const std::byte* packed) { product_->Borrow(packed); }
const std::byte* PackedMatrix::packed() const { return product_ ? product_->packed() : nullptr; }

std::int64_t PackedMatrix::out() const { return product_ ? product_->out() : 0; }
std::int64_t PackedMatrix::in() const { return product_ ? product_->in() : 0; }
DType PackedMatrix::dtype() const { return product_ ? product_->compute() : DType::kF32; }
std::int64_t PackedMatrix::bytes() const { return product_ ? product_->bytes() : 0; }
std::int64_t PackedMatrix::panels() const { return product_ ? product_->panels() : 0; }
std::int64_t PackedMatrix::PanelBegin(std::int64_t panel) const {
  return product_->PanelBegin(panel);
}
std::int64_t PackedMatrix::PanelEnd(std::int64_t panel) const {
  return product_->PanelBegin(panel) + product_->PanelWidth(panel);
}
std::span<const std::int64_t> PackedMatrix::TileHeights() const {
  return product_ ? product_->heights() : std::span<const std::int64_t>();
}

}  // namespace maskkv::kernels
