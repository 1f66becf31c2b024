// SPDX-License-Identifier: Apache-2.0
//
// Tokens, confidences and entries do not depend on the number of threads or on which requests share
// a step, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <tuple>

#include "core/engine/decode.h"
#include "core/engine/heap_kv.h"
#include "core/engine/prefill.h"
#include "core/engine/prefix_view.h"
#include "tests/support/seed.h"
#include "tests/unit/core/engine/test_model.h"
#include "tests/unit/core/model/family_checkpoints.h"

namespace maskkv::engine::determinism_test {
namespace {

constexpr std::int64_t kMaxPositions = 700;

// A checkpoint of the golden data or, by the name of a family, one of random weights that lasts as
// long as this.
class ModelFolder {
 public:
  explicit ModelFolder(const std::string& name)
      : path_(std::string(MASKKV_SOURCE_DIR) + "/tests/data/golden/checkpoints/" + name) {
    const std::vector<std::string> families = model::FamilyNames();
    if (std::ranges::find(families, name) == families.end()) return;
    model::WriteRandomCheckpoint(random_, model::FamilyConfig(name), 3);
    path_ = random_.path();
  }
  const std::string& path() const { return path_; }

 private:
  model::TemporaryFolder random_;
  std::string path_;
};

// A request with everything that differs between users.
struct Job {
  std::vector<std::int32_t> prompt;
  std::vector<std::int32_t> response;  // what the canvas starts with
  std::vector<std::int32_t> suffix;    // of the prompt, after the canvas
  GenerateParams params;
  std::optional<EvictionPlan> plan;  // absent: no cache
  std::int64_t served = 0;           // first tokens of the prompt that the cache stands for
  bool provisional = false;
  double rope_scale = 1;
};

std::vector<Job> RandomJobs(const model::ModelConfig& config, std::size_t count,
                            std::mt19937_64& random) {
  std::vector<Job> jobs;
  for (std::size_t i = 0; i < count; ++i) {
    Job& job = jobs.emplace_back();
    // One prompt beyond a row block, so that a sequence is advanced in several.
    const std::uint64_t length = i == 0 ? 600 : 1 + random() % 90;
    while (job.prompt.size() < length) {
      const auto id =
          static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(config.vocab_rows));
      if (id != config.mask_id) job.prompt.push_back(id);
    }
    const auto blocks = static_cast<std::int64_t>(1 + random() % 3);
    job.params.block_length = static_cast<std::int64_t>(1 + random() % 8);
    job.params.gen_length = blocks * job.params.block_length;
    job.params.steps = blocks * static_cast<std::int64_t>(1 + random() % 5);
    job.params.temperature = i % 3 == 0 ? 0.0 : 0.8;
    job.params.seed = random();
    job.params.stop_ids = {config.eos_id};
    job.params.ignore_eos = i % 2 == 0;
    job.response.assign(static_cast<std::size_t>(job.params.gen_length), config.mask_id);
    const std::span<const decoding::Rule> rules = decoding::AllRules();
    job.params.rule.rule = rules[i % rules.size()];
    job.params.rule.threshold = 0.3;
    job.params.rule.low_threshold = 0.2;
    job.params.rule.alg_temp = i % 2 == 0 ? 0.0 : 0.3;
    job.params.rule.top_p = i % 4 == 1 ? 0.8 : 1.0;
    job.params.rule.top_k = i % 4 == 2 ? 5 : 0;
    job.params.response_every = i % 3 == 1 ? 0 : static_cast<std::int64_t>(1 + i % 4);
    job.params.response_share = i % 2 == 0 ? 0.25 : 0.6;
    job.params.cfg_scale = i % 3 == 1 ? 0.8 : 0.0;  // with all rows recomputed
    job.provisional = i % 5 == 1;
    if (i % 5 >= 3) {  // masks between given tokens, the prompt on both sides
      job.params.whole_canvas = true;
      job.params.cfg_scale = 0;
      for (std::size_t p = 1; p < job.response.size(); p += 2 + random() % 3) job.response[p] = 1;
      for (std::uint64_t n = random() % 40; n > 0; --n) {
        job.suffix.push_back(static_cast<std::int32_t>(n % 7));
      }
    } else if (i % 3 == 2) {
      job.params.growth = {.max_gen_length = job.params.gen_length + 3 * job.params.block_length,
                           .by = job.params.block_length,
                           .window = 5,
                           .low_confidence = 0.3};
    }
    // More factors than tables are kept.
    job.rope_scale = i % 3 == 0 ? 1.0 : static_cast<double>(1 + random() % 7);
    if (i % 4 == 3) continue;
    job.plan.emplace();
    job.plan->selection = i % 4 == 2 ? Selection::kFull : Selection::kMaskKv;
    job.plan->layer_rule = i % 4 == 1 ? LayerRule::kOnline : LayerRule::kUniform;
    job.plan->budget = static_cast<std::int64_t>(1 + random() % 20);
    job.served = std::min(ServableTokens(config, static_cast<std::int64_t>(length)),
                          static_cast<std::int64_t>(i % 3 == 0 ? random() % (length + 1) : length));
  }
  return jobs;
}

// (step, position, token, confidence bits), in order.
using Trace = std::vector<std::tuple<std::int64_t, std::int64_t, std::int32_t, std::uint32_t>>;

void Record(const StepEvent& event, Trace& trace) {
  for (const auto* predictions : {&event.committed, &event.provisional}) {
    for (const Prediction& prediction : *predictions) {
      trace.emplace_back(event.step, prediction.position, prediction.token,
                         std::bit_cast<std::uint32_t>(prediction.confidence));
    }
  }
}

std::shared_ptr<const HeapKvEntry> Prefill(TestModel& model, const Job& job) {
  const std::vector<Row> rows =
      PromptThenResponse(job.prompt, job.response, model.weights.config(), job.suffix);
  PrefillRequest request;
  request.rows = rows;
  request.rope_scale = job.rope_scale;
  request.plan = *job.plan;
  request.kv_dtype = model.weights.kv_dtype();
  auto entry = std::make_shared<HeapKvEntry>();
  const auto result = Prefiller(model.transformer).Run(request, *entry);
  EXPECT_TRUE(result.ok()) << result.status();
  return entry;
}

RequestId AddJob(TestModel& model, Decoder& decoder, const Job& job) {
  DecodeRequest request;
  request.prompt_tokens = static_cast<std::int64_t>(job.prompt.size());
  request.params = job.params;
  request.provisional = job.provisional;
  request.rope_scale = job.rope_scale;
  request.prompt.assign(job.prompt.begin() + job.served, job.prompt.end());
  request.response = job.response;
  request.suffix_tokens = std::ssize(job.suffix);
  request.suffix = job.suffix;
  if (job.plan) {
    request.cache = Prefill(model, job);
    if (job.served <
        ServableTokens(model.weights.config(), static_cast<std::int64_t>(job.prompt.size()))) {
      request.cache = std::make_shared<PrefixView>(request.cache, job.served);
    } else {
      request.suffix.clear();  // the entry serves it
    }
  }
  if (job.plan && job.params.guided()) {
    Job masked = job;
    masked.prompt.assign(job.prompt.size(), model.weights.config().mask_id);
    request.unconditional = std::make_shared<PrefixView>(Prefill(model, masked), job.served);
  }
  const auto id = decoder.Add(std::move(request));
  EXPECT_TRUE(id.ok()) << id.status();
  return *id;
}

Trace RunAlone(TestModel& model, const Job& job) {
  Decoder decoder(model.transformer);
  AddJob(model, decoder, job);
  Trace trace;
  while (decoder.running() > 0) Record(decoder.Step().front(), trace);
  return trace;
}

class DeterminismTest : public ::testing::TestWithParam<std::tuple<std::string, kernels::DType>> {};

TEST_P(DeterminismTest, OneTwoAndFourThreadsGiveTheSameBits) {
  const auto& [name, dtype] = GetParam();
  const ModelFolder folder(name);
  std::vector<std::vector<Trace>> traces;
  std::vector<std::vector<std::byte>> payloads;
  for (const int threads : {1, 2, 4}) {
    TestModel model(folder.path(), dtype, threads, kMaxPositions);
    std::mt19937_64 random(maskkv::testing::Seed());
    const std::vector<Job> jobs = RandomJobs(model.weights.config(), 12, random);
    std::vector<Trace>& runs = traces.emplace_back();
    for (const Job& job : jobs) runs.push_back(RunAlone(model, job));
    const auto entry = Prefill(model, jobs[0]);
    std::vector<std::byte>& payload = payloads.emplace_back();
    for (std::int64_t layer = 0; layer < entry->shape().layers; ++layer) {
      for (const kernels::CachedHead& head : entry->Layer(layer)) {
        const auto bytes = static_cast<std::size_t>(head.pairs * entry->shape().head_dim) *
                           kernels::SizeOf(entry->shape().dtype);
        const auto* keys = static_cast<const std::byte*>(head.k);
        const auto* values = static_cast<const std::byte*>(head.v);
        payload.insert(payload.end(), keys, keys + bytes);
        payload.insert(payload.end(), values, values + bytes);
      }
    }
  }
  ASSERT_FALSE(payloads[0].empty());
  for (std::size_t i = 1; i < traces.size(); ++i) {
    EXPECT_EQ(traces[i], traces[0]);
    EXPECT_EQ(payloads[i], payloads[0]);
  }
}

TEST_P(DeterminismTest, ABatchWhoseRequestsComeAndGoGivesWhatEachGivesAlone) {
  const auto& [name, dtype] = GetParam();
  const ModelFolder folder(name);
  TestModel model(folder.path(), dtype, 2, kMaxPositions);
  const std::uint64_t seed = maskkv::testing::Seed();
  std::mt19937_64 random(seed);
  const std::vector<Job> jobs = RandomJobs(model.weights.config(), 12, random);
  std::vector<Trace> alone;
  for (const Job& job : jobs) alone.push_back(RunAlone(model, job));

  Decoder decoder(model.transformer);
  std::map<RequestId, std::size_t> job_of;
  std::vector<Trace> batched(jobs.size());
  std::vector<bool> cut_short(jobs.size());
  std::size_t next = 0;
  while (next < jobs.size() || decoder.running() > 0) {
    // Up to eight at a time; some join late, one in sixteen is taken out before its end.
    while (next < jobs.size() && decoder.running() < 8 && (random() % 2 == 0 || job_of.empty())) {
      job_of[AddJob(model, decoder, jobs[next])] = next;
      ++next;
    }
    for (const StepEvent& event : decoder.Step()) {
      ASSERT_TRUE(event.status.ok()) << event.status;
      Record(event, batched[job_of.at(event.request)]);
      const bool finished = event.finish_reason != FinishReason::kNone;
      if (finished || random() % 16 == 0) {
        cut_short[job_of.at(event.request)] = !finished;
        ASSERT_TRUE(decoder.Remove(event.request).ok());
      }
    }
    decoder.CheckInvariants();
  }
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    if (cut_short[i]) {
      ASSERT_LE(batched[i].size(), alone[i].size());
      alone[i].resize(batched[i].size());
    }
    EXPECT_EQ(batched[i], alone[i]) << "request " << i << ", seed " << seed;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, DeterminismTest,
                         ::testing::Combine(::testing::Values("mha", "gqa", "odd", "dream", "moe"),
                                            ::testing::Values(kernels::DType::kF32,
                                                              kernels::DType::kBF16,
                                                              kernels::DType::kInt8)),
                         [](const auto& model) {
                           return std::get<0>(model.param) + "_" +
                                  std::string(kernels::Name(std::get<1>(model.param)));
                         });

}  // namespace
}  // namespace maskkv::engine::determinism_test
