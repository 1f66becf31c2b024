// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/growth_flags.h"

#include <CLI/CLI.hpp>

#include "services/maskkv/flag_checks.h"

namespace maskkv::cli {

void GrowthFlags::Declare(CLI::App& app) {
  CLI::Option* most =
      app.add_option("--max-gen-length", growth.max_gen_length,
                     "The canvas may grow to N masks while the end token is not expected at its "
                     "end; 0: it does not grow");
  most->check(IntegerIn(0, kLargestCount))->capture_default_str();
  app.add_option("--grow-by", growth.by,
                 "Masks at a time, a multiple of the block length [the smallest from 8 on]")
      ->check(IntegerIn(1, kLargestCount))
      ->needs(most);
  app.add_option("--grow-window", growth.window,
                 "Last positions over which the end token's mean probability is taken")
      ->check(IntegerIn(1, kLargestCount))
      ->needs(most)
      ->capture_default_str();
  app.add_option("--grow-eos", growth.eos_threshold,
                 "Before the first commit it grows while that mean is below this")
      ->check(NumberIn(0, 1))
      ->needs(most)
      ->capture_default_str();
  app.add_option("--grow-eos-decoding", growth.eos_threshold_decoding,
                 "Later, after steps whose mean was below this ...")
      ->check(NumberIn(0, 1))
      ->needs(most)
      ->capture_default_str();
  app.add_option("--grow-low-confidence", growth.low_confidence,
                 "... and which left a mask of the block less probable than this")
      ->check(NumberIn(0, 1))
      ->needs(most)
      ->capture_default_str();
}

}  // namespace maskkv::cli
