// SPDX-License-Identifier: Apache-2.0
//
// Megabytes a second of encoding and decoding, over running text and over texts of many scripts.
#include <benchmark/benchmark.h>

#include <fstream>
#include <string>

#include "core/base/check.h"
#include "core/model/tokenizer.h"
#include "nlohmann/json.hpp"

namespace maskkv::model {
namespace {

constexpr std::size_t kBytes = 1 << 20;
constexpr char kFolder[] = MASKKV_SOURCE_DIR "/tests/data/tokenizer/qwen2";

const Tokenizer& GoldenTokenizer() {
  static const auto tokenizer = Tokenizer::Load(kFolder);
  MASKKV_CHECK(tokenizer.ok(), "the golden tokenizer loads");
  return *tokenizer;
}

std::string RunningText() {
  std::string text;
  while (text.size() < kBytes) text += "The quick brown fox, born in 1987, doesn't live here.\n";
  return text;
}

std::string ManyScripts() {
  std::string text;
  while (text.size() < kBytes) {
    std::ifstream cases(std::string(kFolder) + "/cases.jsonl");
    for (std::string line; std::getline(cases, line);) {
      text += nlohmann::json::parse(line)["text"].get<std::string>();
    }
    MASKKV_CHECK(!text.empty(), "the golden cases are there");
  }
  return text;
}

void SetBytes(benchmark::State& state, const std::string& text) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}

void Encode(benchmark::State& state, const std::string& text) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(GoldenTokenizer().Encode(text, SpecialText::kPlain));
  }
  SetBytes(state, text);
}
BENCHMARK_CAPTURE(Encode, running_text, RunningText())->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Encode, many_scripts, ManyScripts())->Unit(benchmark::kMillisecond);

void Decode(benchmark::State& state, const std::string& text) {
  const auto ids = GoldenTokenizer().Encode(text, SpecialText::kPlain);
  for (auto _ : state) {
    benchmark::DoNotOptimize(GoldenTokenizer().Decode(*ids, /*skip_special=*/true));
  }
  SetBytes(state, text);
}
BENCHMARK_CAPTURE(Decode, running_text, RunningText())->Unit(benchmark::kMillisecond);

void Load(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(Tokenizer::Load(kFolder));
}
BENCHMARK(Load)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace maskkv::model
