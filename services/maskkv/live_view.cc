// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/live_view.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_format.h"
#include "services/maskkv/progress.h"

namespace maskkv::cli {
namespace {

constexpr const char* kMask = "·";

struct TerminalSize {
  int columns = 80;
  int rows = 24;
};

TerminalSize SizeOf(std::FILE* out) {
  winsize size{};
  if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
    return {size.ws_col, size.ws_row};
  }
  return {};
}

// A terminal would obey control characters; they show as spaces.
char Shown(char c) { return (c >= 0 && c < ' ') || c == '\x7f' ? ' ' : c; }

// Lines of `columns` characters; a code point counts as one column.
std::vector<std::string> Wrap(const std::string& text, int columns) {
  std::vector<std::string> lines(1);
  int used = 0;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t length = 1;
    while (i + length < text.size() &&
           (static_cast<unsigned char>(text[i + length]) & 0xc0U) == 0x80U) {
      ++length;
    }
    if (text[i] == '\n' || used == columns) {
      lines.emplace_back();
      used = 0;
    }
    if (text[i] != '\n') {
      lines.back() += Shown(text[i]);
      lines.back().append(text, i + 1, length - 1);
      ++used;
    }
    i += length;
  }
  return lines;
}

}  // namespace

LiveView::LiveView(const ModelHost& host, std::FILE* out)
    : host_(host), out_(out), terminal_(isatty(fileno(out)) != 0) {}

LiveView::~LiveView() {
  if (finished_ || (printed_bytes_ == 0 && drawn_lines_ == 0)) return;
  std::fputc('\n', out_);
  std::fflush(out_);
}

void LiveView::Show(const engine::Canvas& canvas) {
  tokens_.assign(canvas.tokens().begin(), canvas.tokens().end());
  answer_ = canvas.Answer();
  outcome_ = absl::StrFormat("%s %d steps", engine::Name(canvas.finish_reason()), canvas.step());
  if (!terminal_) {
    PrintPrefix();
    return;
  }
  const auto length = std::ssize(tokens_);
  const std::int64_t done =
      length - std::count(tokens_.begin(), tokens_.end(), host_.config().mask_id);
  Redraw(absl::StrFormat("%s %d/%d tokens decided", Bar(done, length), done, length));
}

void LiveView::Finish(double tokens_per_second) {
  finished_ = true;
  if (!terminal_) {
    PrintPrefix();
  } else {
    Redraw(absl::StrFormat("%s, %.1f tokens/s", outcome_, tokens_per_second));
  }
  std::fputc('\n', out_);
  std::fflush(out_);
}

void LiveView::PrintPrefix() {
  std::string text = host_.Text(answer_);
  // The end of a prefix may be half a character until the next token is decided.
  if (!finished_ && text.ends_with("\xef\xbf\xbd")) return;
  if (text.size() > printed_bytes_) {
    std::fwrite(text.data() + printed_bytes_, 1, text.size() - printed_bytes_, out_);
    std::fflush(out_);
    printed_bytes_ = text.size();
  }
}

void LiveView::Redraw(const std::string& progress) {
  std::string text;
  std::vector<std::int32_t> run;
  const auto flush = [&] {
    text += host_.Text(run);
    run.clear();
  };
  for (const std::int32_t token : tokens_) {
    if (token != host_.config().mask_id) {
      run.push_back(token);
    } else if (!finished_) {
      flush();
      text += kMask;
    }
  }
  flush();
  std::string frame;
  if (drawn_lines_ > 0) frame += absl::StrFormat("\x1b[%dA", drawn_lines_);
  const TerminalSize size = SizeOf(out_);
  std::vector<std::string> lines = Wrap(text, size.columns);
  // The cursor cannot climb above the screen: until the end only what fits is shown.
  const auto most = static_cast<std::size_t>(std::max(1, size.rows - 2));
  if (!finished_ && lines.size() > most) {
    lines.erase(lines.begin(), lines.end() - static_cast<std::ptrdiff_t>(most));
  }
  for (const std::string& line : lines) frame += "\r\x1b[2K" + line + "\n";
  frame += "\r\x1b[J\x1b[2m" + progress + "\x1b[0m";
  drawn_lines_ = static_cast<int>(lines.size());
  std::fwrite(frame.data(), 1, frame.size(), out_);
  std::fflush(out_);
}

}  // namespace maskkv::cli
