// SPDX-License-Identifier: Apache-2.0
//
// What a file of packed weights is worth (docs/weights_cache.md). Prints JSON.
//
//   load    seconds from nothing to packed weights: in memory, into a new file, from the file; each
//           in a process of its own, so that each finds oneDNN's kernels unmade
//   share   two processes that map the file at once: what each holds of it
//   steps   decode steps over own memory and over the file, alternated in one process
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/engine/decode.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/engine/prompt.h"
#include "core/model/checkpoint.h"
#include "core/transformer/transformer.h"
#include "core/transformer/weights.h"
#include "tests/support/smaps.h"

namespace maskkv {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

struct Arguments {
  std::string what, model, cache;
  kernels::DType dtype = kernels::DType::kF32;
  int threads = 2;
};

[[noreturn]] void Fail(const std::string& what) {
  std::fprintf(stderr, "bench_weights: %s\n", what.c_str());
  std::exit(1);
}

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

transformer::Weights Load(const Arguments& arguments, const std::string& cache,
                          kernels::WorkerPool& pool) {
  auto checkpoint = model::Checkpoint::Open(arguments.model);
  if (!checkpoint.ok()) Fail(std::string(checkpoint.status().message()));
  auto weights = transformer::Weights::Load(
      *std::move(checkpoint), {.compute = arguments.dtype, .cache_folder = cache}, pool);
  if (!weights.ok()) Fail(std::string(weights.status().message()));
  for (const std::string& note : weights->origin().notes) {
    std::fprintf(stderr, "bench_weights: %s\n", note.c_str());
  }
  return *std::move(weights);
}

json Mapped() {
  json fields;
  for (const auto& [field, bytes] : testing::MappedBytes(".packed")) {
    if (bytes > 0 && field.find("PageSize") == std::string::npos) fields[field] = bytes;
  }
  return fields;
}

// Runs body in a child, which writes one JSON object to its pipe, and reads it.
template <typename Body>
class Child {
 public:
  explicit Child(const Body& body) {
    if (::pipe(from_) != 0 || ::pipe(to_) != 0) Fail("expected pipes, found none");
    pid_ = ::fork();
    if (pid_ < 0) Fail("expected a child, found none");
    if (pid_ == 0) {
      body(*this);
      std::exit(0);
    }
    ::close(from_[1]);
    ::close(to_[0]);
  }

  // In the child.
  void Tell(const json& what) const {
    const std::string text = what.dump() + "\n";
    if (::write(from_[1], text.data(), text.size()) < 0) Fail("expected a reader, found none");
  }
  void AwaitParent() const {
    char byte = 0;
    if (::read(to_[0], &byte, 1) < 0) Fail("expected a parent, found none");
  }

  // In the parent.
  json Hear() const {
    std::string text;
    for (char byte = 0; ::read(from_[0], &byte, 1) == 1 && byte != '\n';) text += byte;
    return json::parse(text);
  }
  void GoOn() const {
    if (::write(to_[1], "x", 1) != 1) Fail("expected a child, found none");
  }
  void Join() const { ::waitpid(pid_, nullptr, 0); }

 private:
  int from_[2], to_[2];
  pid_t pid_ = 0;
};

json TimedLoad(const Arguments& arguments, const std::string& cache) {
  const Child child([&](const auto& self) {
    kernels::WorkerPool pool(arguments.threads);
    const Clock::time_point start = Clock::now();
    const transformer::Weights weights = Load(arguments, cache, pool);
    const double seconds = Since(start);
    self.Tell(
        {{"seconds", seconds}, {"packed_bytes", weights.packed_bytes()}, {"mapped", Mapped()}});
  });
  json heard = child.Hear();
  child.Join();
  return heard;
}

json LoadFigures(const Arguments& arguments) {
  TimedLoad(arguments, "");  // the checkpoint into the page cache
  json out = {{"own memory", TimedLoad(arguments, "")}};
  for (const auto& entry : std::filesystem::directory_iterator(arguments.cache)) {
    if (entry.path().extension() == ".packed") std::filesystem::remove(entry.path());
  }
  out["new file"] = TimedLoad(arguments, arguments.cache);
  out["file"] = TimedLoad(arguments, arguments.cache);
  out["file again"] = TimedLoad(arguments, arguments.cache);
  return out;
}

json ShareFigures(const Arguments& arguments) {
  const auto body = [&](const auto& self) {
    kernels::WorkerPool pool(1);
    const transformer::Weights weights = Load(arguments, arguments.cache, pool);
    self.Tell({{"loaded", true}});
    self.AwaitParent();
    self.Tell(Mapped());
    self.AwaitParent();
  };
  const Child first(body), second(body);
  for (const auto* child : {&first, &second}) child->Hear();
  json out;
  for (const auto* child : {&first, &second}) {
    child->GoOn();
    out.push_back(child->Hear());
  }
  for (const auto* child : {&first, &second}) child->GoOn();
  for (const auto* child : {&first, &second}) child->Join();
  return out;
}

// Decode steps of one request of 32 masks over an entry of a short prompt.
class Steps {
 public:
  Steps(const Arguments& arguments, const std::string& cache, kernels::WorkerPool& pool)
      : weights_(Load(arguments, cache, pool)), transformer_(weights_, pool, 1024) {
    for (std::int32_t id = 0; id < 512; ++id) prompt_.push_back(id);
    const auto rows = engine::PromptThenMasks(prompt_, kMasks, weights_.config());
    engine::PrefillRequest request;
    request.rows = rows;
    request.plan.layer_rule = engine::LayerRule::kUniform;
    request.plan.budget = 64;
    auto entry = std::make_shared<engine::HeapKvEntry>();
    const auto result = engine::Prefiller(transformer_).Run(request, *entry);
    if (!result.ok()) Fail(std::string(result.status().message()));
    entry_ = std::move(entry);
  }

  // Seconds of some steps.
  void Run(std::int64_t steps, std::vector<double>& seconds) {
    engine::Decoder decoder(transformer_);
    engine::DecodeRequest request;
    request.prompt_tokens = std::ssize(prompt_);
    request.params.gen_length = request.params.block_length = request.params.steps = kMasks;
    request.params.ignore_eos = true;
    request.params.stop_ids = {weights_.config().eos_id};
    request.prompt = engine::RecomputedTail(weights_.config(), prompt_);
    request.cache = entry_;
    if (const auto id = decoder.Add(std::move(request)); !id.ok()) {
      Fail(std::string(id.status().message()));
    }
    for (std::int64_t step = 0; step < steps; ++step) {
      const Clock::time_point start = Clock::now();
      decoder.Step();
      if (step > 0) seconds.push_back(Since(start));
    }
  }

 private:
  static constexpr std::int64_t kMasks = 32;

  transformer::Weights weights_;
  transformer::Transformer transformer_;
  std::vector<std::int32_t> prompt_;
  std::shared_ptr<const engine::KvView> entry_;
};

double Median(std::vector<double> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::ranges::nth_element(values, middle);
  return *middle;
}

json StepFigures(const Arguments& arguments) {
  kernels::WorkerPool pool(arguments.threads);
  Steps own(arguments, "", pool), mapped(arguments, arguments.cache, pool);
  std::vector<double> own_seconds, mapped_seconds;
  for (int round = 0; round < 12; ++round) {
    own.Run(4, own_seconds);
    mapped.Run(4, mapped_seconds);
  }
  return {{"own memory ms", 1e3 * Median(own_seconds)},
          {"file ms", 1e3 * Median(mapped_seconds)},
          {"file / own memory", Median(mapped_seconds) / Median(own_seconds)},
          {"mapped", Mapped()}};
}

}  // namespace
}  // namespace maskkv

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr,
                 "usage: bench_weights load|share|steps MODEL_DIR f32|bf16 CACHE_DIR THREADS\n");
    return 2;
  }
  const maskkv::Arguments arguments{.what = argv[1],
                                    .model = argv[2],
                                    .cache = argv[4],
                                    .dtype = std::string(argv[3]) == "bf16"
                                                 ? maskkv::kernels::DType::kBF16
                                                 : maskkv::kernels::DType::kF32,
                                    .threads = std::atoi(argv[5])};
  std::filesystem::create_directories(arguments.cache);
  const nlohmann::json figures = arguments.what == "load"    ? maskkv::LoadFigures(arguments)
                                 : arguments.what == "share" ? maskkv::ShareFigures(arguments)
                                                             : maskkv::StepFigures(arguments);
  std::printf("%s\n", figures.dump(1).c_str());
  return 0;
}
