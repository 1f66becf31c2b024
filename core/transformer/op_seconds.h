// SPDX-License-Identifier: Apache-2.0
#ifndef MASKKV_CORE_TRANSFORMER_OP_SECONDS_H_
#define MASKKV_CORE_TRANSFORMER_OP_SECONDS_H_

namespace maskkv::transformer {

// Where the time went, in seconds, since construction. gemm has in it the norms and SwiGLU that are
// computed on the way into a product (kernels::RowSource), rope all that FinishHeads does; norm is
// the last one and that before experts, activation what experts need besides their products.
struct OpSeconds {
  double embed = 0, norm = 0, gemm = 0, rope = 0, attention = 0, activation = 0, head = 0;

  double total() const { return embed + norm + gemm + rope + attention + activation + head; }

  // Adds sign * other, field by field.
  void Add(const OpSeconds& other, double sign = 1) {
    embed += sign * other.embed;
    norm += sign * other.norm;
    gemm += sign * other.gemm;
    rope += sign * other.rope;
    attention += sign * other.attention;
    activation += sign * other.activation;
    head += sign * other.head;
  }
};

}  // namespace maskkv::transformer

#endif  // MASKKV_CORE_TRANSFORMER_OP_SECONDS_H_
