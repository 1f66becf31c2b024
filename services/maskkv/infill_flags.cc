// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/infill_flags.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <limits>
#include <optional>
#include <span>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/status_macros.h"
#include "maskkv/v1/common.pb.h"
#include "services/maskkv/input.h"

namespace maskkv::cli {
namespace {

constexpr std::size_t kMaxTextBytes = std::size_t{256} << 20;
constexpr std::string_view kOpen = "[[", kClose = "]]";

// The digits of a mark that starts at `at`; anything else is text.
std::optional<std::string_view> MarkAt(std::string_view text, std::size_t at) {
  const std::size_t first = at + kOpen.size();
  const std::size_t end = text.find_first_not_of("0123456789", first);
  if (end == std::string_view::npos || end == first || !text.substr(end).starts_with(kClose)) {
    return std::nullopt;
  }
  return text.substr(first, end - first);
}

}  // namespace

absl::StatusOr<std::vector<InfillPiece>> ParseInfill(std::string_view text) {
  while (text.ends_with('\n') || text.ends_with('\r')) text.remove_suffix(1);
  std::vector<InfillPiece> pieces;
  std::string given;
  bool masked = false;
  const auto end_text = [&] {
    if (!given.empty()) pieces.push_back({std::exchange(given, {}), 0});
  };
  while (!text.empty()) {
    const std::size_t at = text.find(kOpen);
    const auto mark = at == std::string_view::npos ? std::nullopt : MarkAt(text, at);
    if (!mark) {  // up to behind a bracket that opens nothing
      const std::size_t taken = at == std::string_view::npos ? text.size() : at + 1;
      given += text.substr(0, taken);
      text.remove_prefix(taken);
      continue;
    }
    given += text.substr(0, at);
    end_text();
    std::int64_t masks = 0;
    const auto parsed = std::from_chars(mark->data(), mark->data() + mark->size(), masks);
    if (parsed.ec != std::errc() || masks < 1 || masks > std::numeric_limits<std::int32_t>::max()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("--infill: expected [[N]] with N from 1 to %d, found [[%.40s]]",
                          std::numeric_limits<std::int32_t>::max(), *mark));
    }
    pieces.push_back({{}, masks});
    masked = true;
    text.remove_prefix(at + kOpen.size() + mark->size() + kClose.size());
  }
  end_text();
  if (!masked) {
    return absl::InvalidArgumentError(
        "--infill: expected masks, [[8]] for eight of them, found none");
  }
  return pieces;
}

void InfillFlags::Declare(CLI::App& app) {
  CLI::Option* from_file =
      app.add_option("--infill", file,
                     "Text file, - for standard input, in which [[8]] stands for 8 masks to fill "
                     "in; without a prompt the text around the masks is the prompt");
  from_file->type_name("FILE");
  CLI::Option* given =
      app.add_option("--infill-text", text, "The same, with the text itself")->type_name("TEXT");
  given->excludes(from_file);
  for (CLI::Option* option : {from_file, given}) {
    option->excludes(app.get_option("--gen-length"));
  }
}

absl::StatusOr<InfillFlags::Asked> InfillFlags::Read(const ModelHost& host,
                                                     const PromptFlags& flags) const {
  std::string read = text;
  if (!file.empty()) {
    MASKKV_ASSIGN_OR_RETURN(read, ReadInput(file, kMaxTextBytes));
  }
  MASKKV_ASSIGN_OR_RETURN(const std::vector<InfillPiece> all, ParseInfill(read));
  std::span<const InfillPiece> pieces = all;
  Asked asked;
  if (flags.given()) {
    MASKKV_ASSIGN_OR_RETURN(asked.prompt, host.Prompt(flags));
  } else {
    v1::Prompt prompt;
    prompt.set_text("");
    if (pieces.front().masks == 0) {
      prompt.set_text(pieces.front().text);
      pieces = pieces.subspan(1);
    }
    if (pieces.back().masks == 0) {
      prompt.mutable_suffix()->set_text(pieces.back().text);
      pieces = pieces.first(pieces.size() - 1);
    }
    MASKKV_ASSIGN_OR_RETURN(services::PromptIds ids, host.runtime().Tokenize(prompt));
    asked.prompt = std::move(ids.ids);
    asked.infill.suffix = std::move(ids.suffix);
  }
  v1::Canvas canvas;
  for (const InfillPiece& piece : pieces) {
    v1::CanvasPiece& added = *canvas.add_pieces();
    if (piece.masks > 0) {
      added.set_masks(static_cast<std::int32_t>(piece.masks));
    } else {
      added.set_text(piece.text);
    }
  }
  MASKKV_ASSIGN_OR_RETURN(asked.infill.canvas,
                          host.runtime().TokenizeCanvas(canvas, host.runtime().max_positions()));
  return asked;
}

}  // namespace maskkv::cli
