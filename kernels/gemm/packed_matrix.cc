// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/packed_matrix.h"

#include "kernels/gemm/panel_product.h"

namespace maskkv::kernels {

PackedMatrix::PackedMatrix() = default;
PackedMatrix::PackedMatrix(PackedMatrix&&) noexcept = default;
PackedMatrix& PackedMatrix::operator=(PackedMatrix&&) noexcept = default;
PackedMatrix::~PackedMatrix() = default;
PackedMatrix::PackedMatrix(std::unique_ptr<const PanelProduct> product)
    : product_(std::move(product)) {}

PackedMatrix PackedMatrix::Pack(WorkerPool& pool, std::span<const MatrixSource> parts,
                                std::int64_t in, DType compute) {
  return PackedMatrix(PanelProduct::Pack(pool, parts, in, compute));
}

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
