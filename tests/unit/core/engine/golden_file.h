// SPDX-License-Identifier: Apache-2.0
//
// What the tests of one kind of golden files share. Each kind is a folder of tests/data/golden,
// written by the NumPy oracle (python/maskkv_oracle), whose README says what each key means. The
// folder is part of the checkout: what cannot be read, or lacks a key, aborts or throws.
#ifndef MASKKV_TESTS_UNIT_CORE_ENGINE_GOLDEN_FILE_H_
#define MASKKV_TESTS_UNIT_CORE_ENGINE_GOLDEN_FILE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "core/decoding/prediction.h"
#include "core/engine/decode_request.h"
#include "core/engine/eviction_plan.h"
#include "core/engine/generate_params.h"
#include "core/engine/kv.h"

namespace maskkv::engine {

// Where cases are read from: tests/data/golden, or what MASKKV_GOLDEN names, for cases that are in
// no committed file (tests/python/test_golden_made_here.py).
std::string GoldenFolder();

// The committed files of a kind, whatever MASKKV_GOLDEN names: the other folder has few kinds.
std::string CommittedGolden(const std::string& kind);

// Names of the files (without .json) and folders of a folder, sorted.
std::vector<std::string> GoldenNames(const std::string& folder);

// FOLDER/NAME.json.
nlohmann::json ReadGolden(const std::string& folder, const std::string& name);

// A case's name as GoogleTest allows it in a test's: '-' and '.' become '_'.
std::string GoldenTestName(const ::testing::TestParamInfo<std::string>& info);

// The directory of the checkpoint that `model` names.
std::string GoldenModel(const nlohmann::json& golden);

// The parameters that `params` gives of every kind; `rule` may be absent. What only some kinds
// have (refresh, guidance, growth, a canvas to fill in) is left to their tests.
GenerateParams GoldenParams(const nlohmann::json& golden);

// The plan of a policy by name. alpha and beta are the file's, or the engine's where they are
// absent or null; `profile` is read where the policy needs one.
EvictionPlan GoldenPlan(const nlohmann::json& golden, const std::string& policy,
                        std::int64_t budget);
// The same, of the file's own `policy` and `budget`.
EvictionPlan GoldenPlan(const nlohmann::json& golden);

// What a head kept.
std::vector<std::int32_t> KeptPositions(const KvView& entry, std::size_t layer, std::size_t head);

// Expects every head's positions to be `kept`'s (a list a layer of a list a head), of as many
// layers and heads as the entry has.
void ExpectKept(const KvView& entry, const nlohmann::json& kept);
// The same, without the heads that `decided` (layer, head) calls false, as rounding may keep others
// there. Returns how many these are.
std::int64_t ExpectKept(const KvView& entry, const nlohmann::json& kept,
                        const nlohmann::json& decided);

// Expects the predictions to be `committed` ([position, token, confidence] each) in this order,
// confidences within the bound. Fatal failure: another number of them.
void ExpectCommitted(std::span<const decoding::Prediction> found, const nlohmann::json& committed,
                     double bound);

// Expects a step that succeeded, with the number and `committed` of `expected`, within its
// bounds.confidence. The cases were chosen so that every step is decided, which is expected too.
// Fatal failure: any of these, but a position, a token or a confidence.
void ExpectStep(const StepEvent& event, const nlohmann::json& expected);

}  // namespace maskkv::engine

#endif  // MASKKV_TESTS_UNIT_CORE_ENGINE_GOLDEN_FILE_H_
