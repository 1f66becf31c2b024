// SPDX-License-Identifier: Apache-2.0
//
// What a file of packed weights is worth (docs/weights_cache.md). Prints JSON; figures are the
// median, least and most of REPEATS runs, which take turns.
//
//   load    seconds from nothing to packed weights: in memory, into a new file, from the file; each
//           in a process of its own, so that each finds oneDNN's kernels unmade
//   share   two processes that map the file at once: what each holds of it
//   steps   decode steps over own memory and over the file, alternated in one process; both loaded
//           anew each time, for where weights happen to lie shifts steps by some per cent
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/bench/step_world.h"
#include "tests/bench/timing.h"
#include "tests/support/smaps.h"

namespace maskkv::bench {
namespace {

using nlohmann::json;

constexpr std::int64_t kMasks = 32, kPromptTokens = 512, kBudget = 64, kSteps = 48;

struct Arguments {
  std::string what, model, cache;
  kernels::DType dtype = kernels::DType::kF32;
  int threads = 2;
  int repeats = 5;
};

WorldOptions Options(const Arguments& arguments, const std::string& cache) {
  return {arguments.model, arguments.dtype, 1024, cache};
}

// REQUIRES: values is not empty.
json Spread(const std::vector<double>& values) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  return {{"median", Median(values)}, {"min", *least}, {"max", *most}, {"runs", values.size()}};
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
    const transformer::Weights weights = LoadWeights(Options(arguments, cache), pool);
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
  std::vector<double> own, made, mapped;
  json last;
  for (int repeat = 0; repeat < arguments.repeats; ++repeat) {
    own.push_back(TimedLoad(arguments, "")["seconds"]);
    for (const auto& entry : std::filesystem::directory_iterator(arguments.cache)) {
      if (entry.path().extension() == ".packed") std::filesystem::remove(entry.path());
    }
    made.push_back(TimedLoad(arguments, arguments.cache)["seconds"]);
    last = TimedLoad(arguments, arguments.cache);
    mapped.push_back(last["seconds"]);
  }
  return {{"own memory s", Spread(own)},
          {"new file s", Spread(made)},
          {"file s", Spread(mapped)},
          {"packed_bytes", last["packed_bytes"]},
          {"mapped", last["mapped"]}};
}

json ShareFigures(const Arguments& arguments) {
  const auto body = [&](const auto& self) {
    kernels::WorkerPool pool(1);
    const transformer::Weights weights = LoadWeights(Options(arguments, arguments.cache), pool);
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

// A model and one request that steps over the entry of a short prompt.
struct Side {
  Side(const Arguments& arguments, const std::string& cache, kernels::WorkerPool& pool)
      : world(Options(arguments, cache), pool),
        stepper(world, world.Prompt(kPromptTokens),
                world.Prefill(world.Prompt(kPromptTokens), kMasks, kBudget), kMasks, 1) {}
  World world;
  Stepper stepper;
};

json StepFigures(const Arguments& arguments) {
  kernels::WorkerPool pool(arguments.threads);
  std::vector<double> own_ms, mapped_ms, ratios;
  json mapping;
  for (int repeat = 0; repeat < arguments.repeats; ++repeat) {
    Side own(arguments, "", pool), mapped(arguments, arguments.cache, pool);
    for (std::int64_t step = 0; step < kSteps; ++step) {
      own.stepper.Step();
      mapped.stepper.Step();
    }
    own_ms.push_back(1e3 * Median(own.stepper.seconds()));
    mapped_ms.push_back(1e3 * Median(mapped.stepper.seconds()));
    ratios.push_back(mapped_ms.back() / own_ms.back());
    mapping = Mapped();
  }
  return {{"own memory ms", Spread(own_ms)},
          {"file ms", Spread(mapped_ms)},
          {"file / own memory", Spread(ratios)},
          {"mapped", mapping}};
}

}  // namespace
}  // namespace maskkv::bench

int main(int argc, char** argv) {
  using namespace maskkv::bench;
  if (argc != 6 && argc != 7) {
    std::fprintf(stderr,
                 "usage: bench_weights load|share|steps MODEL_DIR f32|bf16 CACHE_DIR THREADS "
                 "[REPEATS]\n");
    return 2;
  }
  const Arguments arguments{.what = argv[1],
                            .model = argv[2],
                            .cache = argv[4],
                            .dtype = std::string(argv[3]) == "bf16" ? maskkv::kernels::DType::kBF16
                                                                    : maskkv::kernels::DType::kF32,
                            .threads = std::atoi(argv[5]),
                            .repeats = argc == 7 ? std::max(1, std::atoi(argv[6])) : 5};
  std::filesystem::create_directories(arguments.cache);
  const nlohmann::json figures = arguments.what == "load"    ? LoadFigures(arguments)
                                 : arguments.what == "share" ? ShareFigures(arguments)
                                                             : StepFigures(arguments);
  std::printf("%s\n", figures.dump(1).c_str());
  return 0;
}
