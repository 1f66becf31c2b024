// SPDX-License-Identifier: Apache-2.0
//
// When a request's prompt is prefilled again. An entry holds what the masks of one canvas voted
// for; K and V of the prompt depend on the response too, for attention is bidirectional. So after
// refresh_every steps over an entry, or once attention to it has faded, the prompt goes through
// another prefill together with the response as it stands (PromptThenResponse), whose masks vote
// anew under the same plan, and decoding goes on over the entry that this gives. A value; the
// decoder keeps one for each request. docs/adr/0013-refresh.md.
#ifndef MASKKV_CORE_ENGINE_REFRESH_H_
#define MASKKV_CORE_ENGINE_REFRESH_H_

#include <cstdint>

#include "core/engine/generate_params.h"

namespace maskkv::engine {

class RefreshSchedule {
 public:
  explicit RefreshSchedule(const GenerateParams& params)
      : every_(params.refresh_every), floor_(params.refresh_floor) {}

  // Whether steps measure their kept mass.
  bool measures() const { return floor_ > 0; }

  // One step over the entry was taken. kept_mass: the share of its queries' attention that fell on
  // kept pairs; read if measures(). One that is no number calls for nothing.
  void StepTaken(double kept_mass);

  // No further step may be taken over the entry.
  bool due() const { return due_; }

  // From now on steps are over another entry.
  void Swapped();

 private:
  std::int64_t every_;
  double floor_;
  std::int64_t steps_ = 0;  // over the entry
  double first_mass_ = 0;   // of the first of them
  bool due_ = false;
};

}  // namespace maskkv::engine

#endif  // MASKKV_CORE_ENGINE_REFRESH_H_
