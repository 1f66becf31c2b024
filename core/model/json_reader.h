// SPDX-License-Identifier: Apache-2.0
//
// Strict reading of the JSON files of a checkpoint. A JsonDocument owns a parsed text; a JsonField
// is a cheap view of one value in it that knows its file and its path, so that every error reads
// "FILE: field a.b: expected an integer >= 1, found string "x"". Stricter than JSON itself: a key
// that appears twice in one object is refused (most parsers keep the last one silently), nesting
// deeper than kMaxDepth is refused, numbers that a double cannot hold are refused.
//
// Thread safety: both types are immutable after construction. A JsonField must not outlive the
// document it came from. No exception leaves the source file.
#ifndef MASKKV_CORE_MODEL_JSON_READER_H_
#define MASKKV_CORE_MODEL_JSON_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/base/function_ref.h"
#include "nlohmann/json_fwd.hpp"

namespace maskkv::model {

// A text or a name out of a file, made safe for one line of a message: control characters and bytes
// above 0x7e are escaped, and anything longer than 80 bytes is cut.
std::string Printable(std::string_view text);

// "FILE: field PATH: expected EXPECTED, found FOUND" as INVALID_ARGUMENT.
absl::Status FieldError(std::string_view file, std::string_view path, std::string_view expected,
                        std::string_view found);

class JsonField {
 public:
  JsonField(const nlohmann::json* value, const std::string* file, std::string path)
      : value_(value), file_(file), path_(std::move(path)) {}

  const std::string& file() const { return *file_; }
  const std::string& path() const { return path_; }

  bool is_null() const;
  bool is_string() const;
  bool is_object() const;
  bool is_array() const;

  // The members and elements below. Errors: INVALID_ARGUMENT if this is no object or array, if the
  // member is missing, if the index is not below size().
  absl::StatusOr<JsonField> Get(std::string_view key) const;
  absl::StatusOr<JsonField> At(std::size_t index) const;
  // Elements of an array, members of an object, else 0.
  std::size_t size() const;
  // The member if this is an object that has it.
  std::optional<JsonField> Find(std::string_view key) const;

  // Calls visit(key, member) in ascending order of keys, visit(element) in order; stops at the
  // first error and returns it. Errors: also INVALID_ARGUMENT if this is no object or array.
  absl::Status ForEachMember(
      kernels::FunctionRef<absl::Status(const std::string& key, const JsonField&)> visit) const;
  absl::Status ForEachElement(kernels::FunctionRef<absl::Status(const JsonField&)> visit) const;

  // The value as a type. Errors: INVALID_ARGUMENT for another JSON type or a value out of range.
  // An integer must be written as one: 1.0 is refused. A number may be written as an integer.
  absl::StatusOr<std::int64_t> Integer(std::int64_t min, std::int64_t max) const;
  absl::StatusOr<double> Number() const;
  absl::StatusOr<bool> Bool() const;
  // The view lives as long as the document.
  absl::StatusOr<std::string_view> String() const;

  // INVALID_ARGUMENT that says what was expected here and quotes what is here.
  absl::Status Expected(std::string_view expected) const;

 private:
  const nlohmann::json* value_;
  const std::string* file_;
  std::string path_;
};

class JsonDocument {
 public:
  static constexpr int kMaxDepth = 64;

  // Parses a whole text. `file` is only for messages.
  // Errors: INVALID_ARGUMENT naming the file and the byte offset or the path.
  static absl::StatusOr<JsonDocument> Parse(std::string_view text, std::string_view file);

  JsonDocument(JsonDocument&&) noexcept;
  JsonDocument& operator=(JsonDocument&&) noexcept;
  ~JsonDocument();

  // The outermost value; its path is empty.
  JsonField root() const;

 private:
  struct Content;
  explicit JsonDocument(std::unique_ptr<Content> content);
  std::unique_ptr<Content> content_;
};

}  // namespace maskkv::model

#endif  // MASKKV_CORE_MODEL_JSON_READER_H_
