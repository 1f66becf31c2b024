// SPDX-License-Identifier: Apache-2.0
//
// --max-gen-length and the other flags of answers of variable length (core/engine/growth.h). A
// value.
#ifndef MASKKV_SERVICES_MASKKV_GROWTH_FLAGS_H_
#define MASKKV_SERVICES_MASKKV_GROWTH_FLAGS_H_

#include "core/engine/growth.h"

namespace CLI {
class App;
}

namespace maskkv::cli {

struct GrowthFlags {
  engine::Growth growth;

  void Declare(CLI::App& app);
};

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_GROWTH_FLAGS_H_
