// SPDX-License-Identifier: Apache-2.0
//
// --refresh-every and --refresh-floor of the commands that decode over a cache. A value.
#ifndef MASKKV_SERVICES_MASKKV_REFRESH_FLAGS_H_
#define MASKKV_SERVICES_MASKKV_REFRESH_FLAGS_H_

#include <cstdint>

#include "core/engine/generate_params.h"

namespace CLI {
class App;
}

namespace maskkv::cli {

struct RefreshFlags {
  std::int64_t every = 0;
  double floor = 0;

  void Declare(CLI::App& app);
  void Apply(engine::GenerateParams& params) const;
};

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_REFRESH_FLAGS_H_
