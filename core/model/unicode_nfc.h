// SPDX-License-Identifier: Apache-2.0
//
// Unicode normalisation form C as the `tokenizers` package does it: by the tables of Unicode 9.0,
// under which a character assigned later has no decomposition, composes with nothing and is a
// starter. Pure and thread safe.
#ifndef MASKKV_CORE_MODEL_UNICODE_NFC_H_
#define MASKKV_CORE_MODEL_UNICODE_NFC_H_

#include <string>
#include <string_view>

namespace maskkv::model {

// REQUIRES: valid UTF-8 of at most 2^30 bytes.
std::string ToNfc(std::string_view text);

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_UNICODE_NFC_H_
