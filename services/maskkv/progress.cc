// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace maskkv::cli {

std::string Bar(std::int64_t done, std::int64_t all, int cells) {
  const std::int64_t full =
      std::clamp<std::int64_t>(done * cells / std::max<std::int64_t>(all, 1), 0, cells);
  std::string bar;
  for (int i = 0; i < cells; ++i) bar += i < full ? "█" : "░";
  return bar;
}

ProgressBar::ProgressBar(std::string label, std::int64_t all)
    : label_(std::move(label)), all_(all), terminal_(isatty(STDERR_FILENO) != 0) {
  Draw();
}

ProgressBar::~ProgressBar() {
  if (terminal_) std::fputs("\r\x1b[2K", stderr);
}

void ProgressBar::Advance(std::int64_t by) {
  done_ += by;
  Draw();
}

void ProgressBar::Draw() const {
  if (!terminal_) return;
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  std::fprintf(stderr, "\r\x1b[2K%s %lld/%lld %s", Bar(done_, all_).c_str(),
               static_cast<long long>(done_), static_cast<long long>(all_), label_.c_str());
  if (done_ > 0) {
    std::fprintf(stderr, ", %.0f s left",
                 seconds / static_cast<double>(done_) * static_cast<double>(all_ - done_));
  }
  std::fflush(stderr);
}

}  // namespace maskkv::cli
