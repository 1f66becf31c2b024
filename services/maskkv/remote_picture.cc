// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/remote_picture.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <future>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "maskkv/v1/prefill.grpc.pb.h"
#include "services/common/server.h"
#include "services/common/status.h"
#include "services/maskkv/command.h"
#include "services/maskkv/prompt_input.h"

namespace maskkv::cli {
namespace {

constexpr std::chrono::milliseconds kLook{50};  // how often a waiting call looks for a signal

absl::Status FillPrompt(const PromptFlags& flags, v1::Prompt& prompt) {
  if (!flags.prompt_ids.empty()) {
    MASKKV_ASSIGN_OR_RETURN(const std::vector<std::int32_t> ids, ReadIds(flags));
    prompt.mutable_tokens()->mutable_ids()->Assign(ids.begin(), ids.end());
    return absl::OkStatus();
  }
  MASKKV_ASSIGN_OR_RETURN(*prompt.mutable_document()->mutable_document(), ReadDocument(flags));
  prompt.mutable_document()->set_question(flags.question);
  return absl::OkStatus();
}

void FillKeep(const CacheFlags& flags, v1::KeepPolicy& keep) {
  if (!flags.policy.empty()) {
    keep.set_policy(flags.policy);
  } else {
    if (flags.mode() == CacheMode::kFull) return keep.set_selection(v1::SELECTION_FULL);
    keep.set_selection(flags.mode() == CacheMode::kRandom ? v1::SELECTION_RANDOM
                                                          : v1::SELECTION_MASKKV);
    keep.set_layer_rule(flags.layers == "online"    ? v1::LAYER_RULE_ONLINE
                        : flags.layers == "uniform" ? v1::LAYER_RULE_UNIFORM
                                                    : v1::LAYER_RULE_OFFLINE);
  }
  keep.set_alpha(flags.alpha);
  keep.set_beta(flags.beta);
  if (flags.coverage > 0) {
    keep.set_coverage(flags.coverage);
    keep.set_max_budget(flags.max_budget);
  } else {
    keep.set_budget(flags.budget);
  }
}

// What a peer says is checked before it indexes anything.
absl::Status Check(const v1::ExplainResponse& response, const v1::ModelInfoResponse& model) {
  const auto wrong = [](const std::string& what) {
    return absl::DataLossError(absl::StrCat("explanation: expected ", what, ", found others"));
  };
  if (model.layers() < 0 || model.kv_heads() < 0 || response.prompt_tokens() < 0 ||
      static_cast<std::int64_t>(model.layers()) * model.kv_heads() != response.heads_size()) {
    return wrong("one head for each of the model's");
  }
  for (const v1::HeadExplanation& head : response.heads()) {
    const auto& kept = head.positions();
    if (std::adjacent_find(kept.begin(), kept.end(), std::greater_equal<>()) != kept.end() ||
        (!kept.empty() && (kept[0] < 0 || kept[kept.size() - 1] >= response.prompt_tokens()))) {
      return wrong("ascending positions of the prompt");
    }
  }
  return absl::OkStatus();
}

// Runs a unary call to its end, or until a signal arrives.
absl::Status Wait(grpc::ClientContext& context, const std::function<grpc::Status()>& call) {
  std::future<grpc::Status> done = std::async(std::launch::async, call);
  while (done.wait_for(kLook) != std::future_status::ready) {
    if (Interrupted()) context.TryCancel();
  }
  const absl::Status status = services::FromGrpc(done.get());
  return Interrupted() ? absl::CancelledError("interrupted") : status;
}

}  // namespace

absl::StatusOr<KeptPicture> AskForPicture(const std::string& server, const PromptFlags& prompt,
                                          std::int64_t masks, const CacheFlags& cache) {
  v1::ExplainRequest request;
  MASKKV_RETURN_IF_ERROR(FillPrompt(prompt, *request.mutable_prompt()));
  request.set_masks(masks);
  FillKeep(cache, *request.mutable_keep());
  const auto stub = v1::PrefillService::NewStub(services::OpenChannel(server));
  v1::ExplainResponse response;
  v1::ModelInfoResponse model;
  const auto call = [&](auto method, const auto& message, auto& answer) -> absl::Status {
    grpc::ClientContext context;
    const absl::Status status =
        Wait(context, [&] { return (stub.get()->*method)(&context, message, &answer); });
    if (status.ok() || absl::IsCancelled(status)) return status;
    return {status.code(), absl::StrCat(server, ": ", status.message())};
  };
  using Stub = v1::PrefillService::Stub;
  MASKKV_RETURN_IF_ERROR(call(&Stub::ModelInfo, v1::ModelInfoRequest(), model));
  MASKKV_RETURN_IF_ERROR(call(&Stub::Explain, request, response));
  MASKKV_RETURN_IF_ERROR(Check(response, model));
  KeptPicture picture{.prompt_tokens = response.prompt_tokens(),
                      .masks = response.masks(),
                      .bytes = 0,
                      .mass = response.kept().mass(),
                      .heads = {}};
  for (int i = 0; i < response.heads_size(); ++i) {
    if (i % model.kv_heads() == 0) picture.heads.emplace_back();
    const v1::HeadExplanation& head = response.heads(i);
    picture.heads.back().push_back(
        {head.preference(), {head.positions().begin(), head.positions().end()}});
  }
  picture.bytes = picture.pairs() * static_cast<std::int64_t>(model.pair_bytes());
  return picture;
}

}  // namespace maskkv::cli
