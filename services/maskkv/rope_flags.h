// SPDX-License-Identifier: Apache-2.0
//
// --rope-scaling of the commands that run prompts longer than a model was trained on. A value.
#ifndef MASKKV_SERVICES_MASKKV_ROPE_FLAGS_H_
#define MASKKV_SERVICES_MASKKV_ROPE_FLAGS_H_

#include <string>

#include "core/model/rope_scaling.h"

namespace CLI {
class App;
}

namespace maskkv::cli {

struct RopeFlags {
  std::string scaling = "none";  // none | longllada | a number from 1

  void Declare(CLI::App& app);
  // REQUIRES: the text was checked by Declare's option, or is the default.
  model::RopeScaling choice() const;
};

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_ROPE_FLAGS_H_
