// SPDX-License-Identifier: Apache-2.0
//
// What `maskkv top` shows: two readings of the services' metrics, some seconds apart, as lines of
// text. Pure.
#ifndef MASKKV_SERVICES_MASKKV_TOP_VIEW_H_
#define MASKKV_SERVICES_MASKKV_TOP_VIEW_H_

#include <string>
#include <vector>

#include "services/maskkv/metrics_page.h"

namespace maskkv::cli {

// Requests, prefill, steps, cache memory and budgets; a group whose metrics nobody exports is left
// out. before: an earlier reading, `seconds` ago; rates and means are of the time between. A
// process that restarted in between counts from zero.
std::vector<std::string> TopLines(const MetricsPage& before, const MetricsPage& now,
                                  double seconds);

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_TOP_VIEW_H_
