// SPDX-License-Identifier: Apache-2.0
//
// The canvas as it denoises, redrawn in place on a terminal: decided text plain, masks as dots, and
// a progress line; of a text that is taller than the terminal the last lines. Elsewhere (a pipe, a
// file) only the decided prefix is printed as it grows, so the output is the answer and nothing
// else. Not thread safe.
#ifndef MASKKV_SERVICES_MASKKV_LIVE_VIEW_H_
#define MASKKV_SERVICES_MASKKV_LIVE_VIEW_H_

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "core/engine/canvas.h"
#include "services/maskkv/model_host.h"

namespace maskkv::cli {

class LiveView {
 public:
  // out: where to draw; redraws in place if it is a terminal.
  LiveView(const ModelHost& host, std::FILE* out);
  // Ends a line that an error left unfinished.
  ~LiveView();
  LiveView(const LiveView&) = delete;
  LiveView& operator=(const LiveView&) = delete;

  // Shows the canvas after a step.
  void Show(const engine::Canvas& canvas);

  // Ends the answer, as it was shown last, with a line feed. tokens_per_second is part of the last
  // progress line.
  void Finish(double tokens_per_second);

 private:
  void Redraw(const std::string& progress);
  void PrintPrefix();

  const ModelHost& host_;
  std::FILE* const out_;
  const bool terminal_;
  // Of the canvas that was shown last.
  std::vector<std::int32_t> tokens_, answer_;
  std::string outcome_;            // why it ended and after how many steps
  std::size_t printed_bytes_ = 0;  // of the decided prefix, without a terminal
  int drawn_lines_ = 0;            // to climb over on the next redraw
  bool finished_ = false;
};

}  // namespace maskkv::cli

#endif  // MASKKV_SERVICES_MASKKV_LIVE_VIEW_H_
