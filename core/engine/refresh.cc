// SPDX-License-Identifier: Apache-2.0
#include "core/engine/refresh.h"

namespace maskkv::engine {

void RefreshSchedule::StepTaken(double kept_mass) {
  if (steps_++ == 0) first_mass_ = kept_mass;
  due_ = (every_ > 0 && steps_ >= every_) || (floor_ > 0 && kept_mass < floor_ * first_mass_);
}

void RefreshSchedule::Swapped() {
  steps_ = 0;
  due_ = false;
}

}  // namespace maskkv::engine
