// SPDX-License-Identifier: Apache-2.0
#include "core/model/unicode_nfc.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uniset.h>

#include <algorithm>

#include "core/base/check.h"

namespace maskkv::model {
namespace {

class Nfc {
 public:
  Nfc()
      : set_(icu::UnicodeString(u"[:age=9.0:]"), error_),
        all_(icu::Normalizer2::getNFCInstance(error_)),
        filtered_(*all_, Freeze(set_)) {
    MASKKV_CHECK(U_SUCCESS(error_), "ICU has its normalisation data");
  }

  std::string Apply(std::string_view text) const {
    std::string out;
    icu::StringByteSink<std::string> sink(&out, static_cast<std::int32_t>(text.size()));
    UErrorCode error = U_ZERO_ERROR;
    filtered_.normalizeUTF8(0,
                            icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())),
                            sink, nullptr, error);
    MASKKV_CHECK(U_SUCCESS(error), "valid UTF-8 has a normal form");
    return out;
  }

 private:
  // A frozen set is safe to read from several threads.
  static const icu::UnicodeSet& Freeze(icu::UnicodeSet& set) {
    set.freeze();
    return set;
  }

  UErrorCode error_ = U_ZERO_ERROR;
  icu::UnicodeSet set_;
  const icu::Normalizer2* all_;
  icu::FilteredNormalizer2 filtered_;
};

}  // namespace

std::string ToNfc(std::string_view text) {
  const bool ascii =
      std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  if (ascii) return std::string(text);
  static const Nfc nfc;  // tables only; built once because the set takes milliseconds
  return nfc.Apply(text);
}

}  // namespace maskkv::model
