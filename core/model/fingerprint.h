// SPDX-License-Identifier: Apache-2.0
//
// The identity of a model, for everything that is only right for one model: profiles, cached
// prompts. Two checkpoints that differ in configuration, tokenizer, names, shapes or types of
// tensors, or in what was trained, get different fingerprints. It is no checksum: only a sample of
// each tensor is read, so that a model of many gigabytes is identified in milliseconds.
#ifndef MASKKV_CORE_MODEL_FINGERPRINT_H_
#define MASKKV_CORE_MODEL_FINGERPRINT_H_

#include <span>
#include <string>
#include <string_view>

#include "core/model/safetensors.h"

namespace maskkv::model {

// SHA-256, as 64 lower-case hexadecimal digits, over a version tag, config.json, tokenizer.json
// (empty if there is none), then per file, in the order given, the header and, per tensor in
// ascending order of names, its first, middle and last 4 KiB (all of it if it is no larger than
// that). Every part is preceded by its length, so that no two inputs run together.
std::string ModelFingerprint(std::string_view config_json, std::string_view tokenizer_json,
                             std::span<const SafetensorsFile> files);

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_FINGERPRINT_H_
