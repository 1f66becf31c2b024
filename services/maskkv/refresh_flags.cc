// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/refresh_flags.h"

#include <CLI/CLI.hpp>

#include "services/maskkv/flag_checks.h"

namespace maskkv::cli {

void RefreshFlags::Declare(CLI::App& app) {
  app.add_option("--refresh-every", every,
                 "Prefill the prompt again with the answer so far after N steps over an entry; 0: "
                 "never")
      ->check(IntegerIn(0, kLargestCount))
      ->capture_default_str();
  app.add_option("--refresh-floor", floor,
                 "The same once the attention to kept pairs is below this part of what it was in "
                 "the entry's first step; 0: never")
      ->check(NumberIn(0, 1))
      ->capture_default_str();
}

void RefreshFlags::Apply(engine::GenerateParams& params) const {
  params.refresh_every = every;
  params.refresh_floor = floor;
}

}  // namespace maskkv::cli
