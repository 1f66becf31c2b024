// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/reuse_run.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "core/base/scoped_timer.h"
#include "core/base/status_macros.h"
#include "core/engine/decode.h"
#include "core/engine/document_copy.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/engine/prefix_view.h"
#include "core/engine/prompt.h"
#include "services/maskkv/command.h"
#include "services/maskkv/generation.h"

namespace maskkv::cli {
namespace {

using Ids = std::vector<std::int32_t>;

// White space at the ends of an answer does not count.
std::string Trimmed(const std::string& text) {
  return std::string(absl::StripAsciiWhitespace(absl::string_view(text.data(), text.size())));
}

absl::Status CancelledIfInterrupted(std::int64_t, std::int64_t) {
  return Interrupted() ? absl::CancelledError("interrupted") : absl::OkStatus();
}

// Pairs of `a` that `b` has too.
std::int64_t SharedPairs(const engine::KvView& a, const engine::KvView& b) {
  std::int64_t shared = 0;
  for (std::int64_t layer = 0; layer < a.shape().layers; ++layer) {
    for (std::int64_t head = 0; head < a.shape().kv_heads; ++head) {
      const auto of_b = b.Positions(layer, head);
      for (const std::int32_t position : a.Positions(layer, head)) {
        shared += std::ranges::binary_search(of_b, position) ? 1 : 0;
      }
    }
  }
  return shared;
}

// What a question is answered over.
struct Prepared {
  std::shared_ptr<const engine::KvView> cache;
  std::int64_t served = 0;  // prompt tokens that the cache stands for
  double question_bytes = 0;
};

class DocumentRun {
 public:
  DocumentRun(ModelHost& host, const ReuseSetup& setup, const DocumentQuestions& document)
      : host_(host), setup_(setup), document_(document) {}

  // Ids of every question, positions for them, what the cells hold of the document.
  absl::Status Begin(std::vector<ReuseCell>& cells) {
    MASKKV_RETURN_IF_ERROR(CheckQuestions(cells));
    std::int64_t longest = 0;
    const auto add = [&](const std::string& question, std::vector<Ids>& to) -> absl::Status {
      MASKKV_ASSIGN_OR_RETURN(services::PromptIds prompt,
                              host_.DocumentPrompt(document_.document, question));
      longest = std::max<std::int64_t>(longest, std::ssize(prompt.ids));
      tokens_ = prompt.document_tokens;
      to.push_back(std::move(prompt.ids));
      return absl::OkStatus();
    };
    for (const Question& question : document_.questions) {
      MASKKV_RETURN_IF_ERROR(add(question.question, first_));
    }
    for (const std::string& question : setup_.generic) {
      MASKKV_RETURN_IF_ERROR(add(question, generic_));
    }
    MASKKV_RETURN_IF_ERROR(add("", none_));
    MASKKV_RETURN_IF_ERROR(host_.Prepare(longest + masks(), /*all_layers=*/true));
    for (const ReuseCell& cell : cells) {
      held_.emplace_back();
      over_.emplace_back();
      if (cell.mode.kind == ReuseKind::kAgain) continue;
      MASKKV_ASSIGN_OR_RETURN(const engine::DocumentCopy* copy, CopyOf(cell.mode.copy));
      if (cell.mode.kind == ReuseKind::kVoted) {
        MASKKV_ASSIGN_OR_RETURN(held_.back(), Cut(*copy, cell));
      } else {
        held_.back() =
            std::make_shared<engine::PrefixView>(copies_.at(cell.mode.copy).entry, tokens_);
      }
    }
    return absl::OkStatus();
  }

  // Asks question `number` of the document in the way of cells[index].
  absl::Status Ask(std::size_t number, std::size_t index, ReuseCell& cell) {
    const Question& question = document_.questions[number];
    const Ids& prompt = first_[number];
    Prepared prepared;
    {
      const ScopedTimer timer(cell.prepare_seconds);
      MASKKV_ASSIGN_OR_RETURN(prepared, Prepare(prompt, index, cell));
    }
    engine::DecodeRequest request;
    request.prompt_tokens = std::ssize(prompt);
    request.prompt.assign(prompt.begin() + prepared.served, prompt.end());
    request.params = setup_.params;
    over_[index] = request.cache = std::move(prepared.cache);
    engine::Decoder decoder(host_.transformer());
    const ScopedTimer timer(cell.decode_seconds);
    MASKKV_ASSIGN_OR_RETURN(const engine::RequestId id, decoder.Add(std::move(request)));
    while (decoder.running() > 0) {
      if (Interrupted()) return absl::CancelledError("interrupted");
      MASKKV_RETURN_IF_ERROR(decoder.Step().front().status);
    }
    const bool correct =
        Trimmed(host_.Text(decoder.Find(id)->Answer())) == Trimmed(question.answer);
    auto& [asked, right] = cell.kinds[question.kind];
    ++asked;
    right += correct ? 1 : 0;
    ++cell.questions;
    cell.correct += correct ? 1 : 0;
    cell.outcomes.push_back(correct ? '1' : '0');
    cell.question_bytes += prepared.question_bytes;
    cell.document_bytes += held_[index] == nullptr ? 0 : static_cast<double>(held_[index]->bytes());
    return absl::OkStatus();
  }

  // Compares what the cells were answered over, after all of them were asked one question.
  void CountShared(std::vector<ReuseCell>& cells) const {
    for (std::size_t again = 0; again < cells.size(); ++again) {
      if (cells[again].mode.kind != ReuseKind::kAgain) continue;
      for (std::size_t i = 0; i < cells.size(); ++i) {
        ReuseCell& cell = cells[i];
        if (cell.mode.kind != ReuseKind::kOver || cell.budget != cells[again].budget) continue;
        cell.pairs_shared += SharedPairs(*over_[again], *over_[i]);
        cell.pairs_again += over_[again]->bytes() / over_[again]->shape().PairBytes();
      }
    }
  }

 private:
  // A document computed with one question in place.
  struct Copy {
    std::shared_ptr<const engine::HeapKvEntry> entry;
    std::optional<engine::DocumentCopy> whole;
  };

  std::int64_t masks() const { return setup_.params.gen_length; }

  absl::Status CheckQuestions(const std::vector<ReuseCell>& cells) const {
    std::int64_t least = setup_.earlier + 1;
    for (const ReuseCell& cell : cells) {
      if (cell.mode.kind != ReuseKind::kVoted) continue;
      if (cell.mode.voters == QuestionSource::kFirst) {
        least = std::max(least, cell.mode.count);
      } else if (cell.mode.voters == QuestionSource::kGeneric &&
                 cell.mode.count > std::ssize(setup_.generic)) {
        return absl::InvalidArgumentError(
            absl::StrFormat("generic: expected at least %d questions for %s, found %d",
                            cell.mode.count, cell.mode.name, setup_.generic.size()));
      }
    }
    if (std::ssize(document_.questions) >= least) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrFormat("questions: expected at least %d about each document, found %d", least,
                        document_.questions.size()));
  }

  const std::vector<Ids>& Prompts(QuestionSource source) const {
    return source == QuestionSource::kFirst     ? first_
           : source == QuestionSource::kGeneric ? generic_
                                                : none_;
  }

  // REQUIRES: the source has a question.
  absl::StatusOr<const engine::DocumentCopy*> CopyOf(QuestionSource source) {
    Copy& copy = copies_[source];
    if (copy.entry == nullptr) {
      engine::EvictionPlan everything;
      everything.selection = engine::Selection::kFull;
      MASKKV_ASSIGN_OR_RETURN(const PrefilledPrompt prefilled,
                              PrefillPrompt(host_, Prompts(source).front(), masks(), everything));
      copy.entry = prefilled.entry;
      MASKKV_ASSIGN_OR_RETURN(copy.whole, engine::DocumentCopy::Of(*copy.entry, tokens_));
    }
    return &*copy.whole;
  }

  // A forward of the question's rows and the masks over the copy.
  absl::StatusOr<std::vector<engine::PrefillResult>> VoteOver(
      const engine::DocumentCopy& copy, const Ids& prompt, std::span<const engine::PrefillCut> cuts,
      std::function<void(std::int64_t, std::span<const float>)> on_scores) {
    const std::vector<engine::Row> rows = engine::PromptThenMasks(prompt, masks(), host_.config());
    engine::PrefillForward forward;
    forward.rows = rows;
    forward.document = &copy;
    forward.after_layer = CancelledIfInterrupted;
    forward.on_scores = std::move(on_scores);
    return engine::Prefiller(host_.transformer()).RunCuts(forward, cuts);
  }

  absl::StatusOr<const engine::CombinedVotes*> VotesOf(const engine::DocumentCopy& copy,
                                                       const ReuseMode& mode) {
    const model::ModelConfig& config = host_.config();
    const auto [it, made] =
        votes_.try_emplace(mode.name, config.layers, config.kv_heads, tokens_, mode.combination);
    engine::CombinedVotes& votes = it->second;
    for (std::int64_t i = 0; made && i < mode.count; ++i) {
      absl::Status added;
      MASKKV_RETURN_IF_ERROR(VoteOver(copy, Prompts(mode.voters)[static_cast<std::size_t>(i)], {},
                                      [&](std::int64_t layer, std::span<const float> scores) {
                                        added.Update(votes.Add(layer, scores));
                                      })
                                 .status());
      MASKKV_RETURN_IF_ERROR(added);
    }
    return &votes;
  }

  absl::StatusOr<std::shared_ptr<const engine::KvView>> Cut(const engine::DocumentCopy& copy,
                                                            const ReuseCell& cell) {
    MASKKV_ASSIGN_OR_RETURN(const engine::CombinedVotes* votes, VotesOf(copy, cell.mode));
    engine::EvictionPlan plan = cell.plan;
    if (cell.mode.wide) plan.budget *= cell.mode.count;
    auto entry = std::make_shared<engine::HeapKvEntry>();
    MASKKV_RETURN_IF_ERROR(engine::CutDocument(host_.transformer().pool(), copy, *votes, plan,
                                               *entry, CancelledIfInterrupted)
                               .status());
    return entry;
  }

  absl::StatusOr<Prepared> Prepare(const Ids& prompt, std::size_t index, const ReuseCell& cell) {
    const std::int64_t servable = engine::ServableTokens(host_.config(), std::ssize(prompt));
    if (cell.mode.kind == ReuseKind::kAgain) {
      MASKKV_ASSIGN_OR_RETURN(const PrefilledPrompt prefilled,
                              PrefillPrompt(host_, prompt, masks(), cell.plan));
      return Prepared{prefilled.entry, servable, static_cast<double>(prefilled.entry->bytes())};
    }
    if (cell.mode.kind == ReuseKind::kOver) {
      auto entry = std::make_shared<engine::HeapKvEntry>();
      const engine::PrefillCut cut{cell.plan, host_.pairs(), entry.get()};
      MASKKV_RETURN_IF_ERROR(
          VoteOver(*copies_.at(cell.mode.copy).whole, prompt, {&cut, 1}, {}).status());
      const auto bytes = static_cast<double>(entry->bytes());
      return Prepared{std::move(entry), servable, bytes};
    }
    return Prepared{held_[index], tokens_, 0};
  }

  ModelHost& host_;
  const ReuseSetup& setup_;
  const DocumentQuestions& document_;
  std::int64_t tokens_ = 0;  // of the document
  std::vector<Ids> first_, generic_, none_;
  std::map<QuestionSource, Copy> copies_;
  std::map<std::string, engine::CombinedVotes> votes_;       // by name of a mode
  std::vector<std::shared_ptr<const engine::KvView>> held_;  // a cell each, or null
  // What each cell answered the question asked last over.
  std::vector<std::shared_ptr<const engine::KvView>> over_;
};

}  // namespace

std::vector<DocumentQuestions> ByDocument(std::vector<Question> questions) {
  std::vector<DocumentQuestions> documents;
  for (Question& question : questions) {
    if (documents.empty() || documents.back().document != question.document) {
      documents.push_back({question.document, {}});
    }
    question.document.clear();
    documents.back().questions.push_back(std::move(question));
  }
  return documents;
}

absl::Status AskAboutDocument(ModelHost& host, const ReuseSetup& setup,
                              const DocumentQuestions& document, std::vector<ReuseCell>& cells) {
  DocumentRun run(host, setup, document);
  MASKKV_RETURN_IF_ERROR(run.Begin(cells));
  for (auto number = static_cast<std::size_t>(setup.earlier); number < document.questions.size();
       ++number) {
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::size_t index = (i + number) % cells.size();
      MASKKV_RETURN_IF_ERROR(run.Ask(number, index, cells[index]));
    }
    run.CountShared(cells);
  }
  return absl::OkStatus();
}

}  // namespace maskkv::cli
