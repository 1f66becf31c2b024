// SPDX-License-Identifier: Apache-2.0
#include "core/model/json_reader.h"

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace maskkv::model {
namespace {

using nlohmann::json;

constexpr std::size_t kLongestQuote = 80;

std::string ChildPath(const std::string& parent, std::string_view key) {
  return parent.empty() ? Printable(key) : parent + "." + Printable(key);
}

std::string ChildPath(const std::string& parent, std::size_t index) {
  return parent + "[" + std::to_string(index) + "]";
}

// What is in the file, for a message.
std::string Describe(const json& value) {
  switch (value.type()) {
    case json::value_t::null:
      return "null";
    case json::value_t::boolean:
      return value.get<bool>() ? "true" : "false";
    case json::value_t::string:
      return absl::StrCat("string \"", Printable(value.get_ref<const std::string&>()), "\"");
    case json::value_t::object:
      return absl::StrCat("an object of ", value.size(), " members");
    case json::value_t::array:
      return absl::StrCat("an array of ", value.size(), " elements");
    default:
      return absl::StrCat("number ", value.dump());
  }
}

// Builds the tree from parse events, because the library's own builder keeps the last of two equal
// keys and has no limit of depth.
class TreeBuilder {
 public:
  using number_integer_t = json::number_integer_t;
  using number_unsigned_t = json::number_unsigned_t;
  using number_float_t = json::number_float_t;
  using string_t = json::string_t;
  using binary_t = json::binary_t;

  TreeBuilder(const std::string& file, json* root) : file_(file), root_(root) {}

  absl::Status status() const { return status_; }

  bool null() { return Add(json(nullptr)) != nullptr; }
  bool boolean(bool value) { return Add(json(value)) != nullptr; }
  bool number_integer(number_integer_t value) { return Add(json(value)) != nullptr; }
  bool number_unsigned(number_unsigned_t value) { return Add(json(value)) != nullptr; }
  bool number_float(number_float_t value, const string_t& text) {
    if (!std::isfinite(value)) return Fail(Path(), "a finite number", Printable(text));
    return Add(json(value)) != nullptr;
  }
  bool string(string_t& value) { return Add(json(std::move(value))) != nullptr; }
  static bool binary(binary_t&) { return false; }  // never called for JSON text
  bool start_object(std::size_t) { return Open(json::object()); }
  bool start_array(std::size_t) { return Open(json::array()); }
  bool end_object() { return Close(); }
  bool end_array() { return Close(); }
  bool key(string_t& value) {
    key_ = std::move(value);
    if (open_.back()->contains(key_)) {
      return Fail(Path(), "every key once", "it twice in one object");
    }
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const json::exception& error) {
    // The library's texts are "[json.exception...] parse error at line 1, column 2: what".
    std::string_view what = error.what();
    if (const auto end = what.find("] "); end != std::string_view::npos)
      what.remove_prefix(end + 2);
    status_ = absl::InvalidArgumentError(
        absl::StrCat(file_, ": not valid JSON at byte ", position, ": ", Printable(what)));
    return false;
  }

 private:
  json* Add(json value) {
    if (open_.empty()) {
      *root_ = std::move(value);
      return root_;
    }
    json& parent = *open_.back();
    if (parent.is_object()) return &(parent[key_] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }

  bool Open(json value) {
    if (open_.size() >= static_cast<std::size_t>(JsonDocument::kMaxDepth)) {
      return Fail(Path(), absl::StrCat("at most ", JsonDocument::kMaxDepth, " levels of nesting"),
                  "more");
    }
    json* added = Add(std::move(value));
    // Pointers to open containers stay valid: an open container is the last thing its parent got,
    // and the parent gets nothing more before this one is closed.
    open_.push_back(added);
    keys_.push_back(key_);
    return true;
  }

  bool Close() {
    open_.pop_back();
    keys_.pop_back();
    return true;
  }

  bool Fail(const std::string& path, std::string_view expected, std::string_view found) {
    status_ = FieldError(file_, path, expected, found);
    return false;
  }

  // The path of the value about to be added. keys_[i] is the key under which open_[i] itself hangs.
  std::string Path() const {
    std::string path;
    for (std::size_t i = 0; i < open_.size(); ++i) {
      const std::string& next = i + 1 < open_.size() ? keys_[i + 1] : key_;
      path = open_[i]->is_object() ? ChildPath(path, next) : ChildPath(path, open_[i]->size());
    }
    return path;
  }

  const std::string& file_;
  json* root_;
  std::vector<json*> open_;
  std::vector<std::string> keys_;
  std::string key_;
  absl::Status status_;
};

}  // namespace

std::string Printable(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (const char c : text) {
    if (out.size() >= kLongestQuote) return out + "...";
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte <= 0x7e) {
      out += c;
    } else {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

absl::Status FieldError(std::string_view file, std::string_view path, std::string_view expected,
                        std::string_view found) {
  return absl::InvalidArgumentError(absl::StrCat(
      std::string(file), ": ", path.empty() ? "the outermost value" : "field ", std::string(path),
      ": expected ", std::string(expected), ", found ", std::string(found)));
}

bool JsonField::is_null() const { return value_->is_null(); }
bool JsonField::is_string() const { return value_->is_string(); }
bool JsonField::is_object() const { return value_->is_object(); }
bool JsonField::is_array() const { return value_->is_array(); }

std::size_t JsonField::size() const { return value_->is_structured() ? value_->size() : 0; }

absl::Status JsonField::Expected(std::string_view expected) const {
  return FieldError(*file_, path_, expected, Describe(*value_));
}

absl::StatusOr<JsonField> JsonField::Get(std::string_view key) const {
  if (!value_->is_object()) return Expected("an object");
  if (auto member = Find(key)) return *std::move(member);
  return FieldError(*file_, ChildPath(path_, key), "a value", "no such field");
}

absl::StatusOr<JsonField> JsonField::At(std::size_t index) const {
  if (!value_->is_array()) return Expected("an array");
  if (index >= value_->size()) {
    return Expected(absl::StrCat("an array of more than ", index, " elements"));
  }
  return JsonField(&(*value_)[index], file_, ChildPath(path_, index));
}

std::optional<JsonField> JsonField::Find(std::string_view key) const {
  if (!value_->is_object()) return std::nullopt;
  const auto found = value_->find(key);
  if (found == value_->end()) return std::nullopt;
  return JsonField(&*found, file_, ChildPath(path_, key));
}

absl::Status JsonField::ForEachMember(
    kernels::FunctionRef<absl::Status(const std::string& key, const JsonField&)> visit) const {
  if (!value_->is_object()) return Expected("an object");
  for (const auto& [key, value] : value_->get_ref<const json::object_t&>()) {
    MASKKV_RETURN_IF_ERROR(visit(key, JsonField(&value, file_, ChildPath(path_, key))));
  }
  return absl::OkStatus();
}

absl::Status JsonField::ForEachElement(
    kernels::FunctionRef<absl::Status(const JsonField&)> visit) const {
  if (!value_->is_array()) return Expected("an array");
  for (std::size_t i = 0; i < value_->size(); ++i) {
    MASKKV_RETURN_IF_ERROR(visit(JsonField(&(*value_)[i], file_, ChildPath(path_, i))));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::int64_t> JsonField::Integer(std::int64_t min, std::int64_t max) const {
  constexpr auto kMax = std::numeric_limits<std::int64_t>::max();
  const std::string expected = max == kMax ? absl::StrCat("an integer >= ", min)
                                           : absl::StrCat("an integer between ", min, " and ", max);
  if (!value_->is_number_integer()) return Expected(expected);
  if (value_->is_number_unsigned() &&
      value_->get<std::uint64_t>() > static_cast<std::uint64_t>(kMax)) {
    return Expected(expected);
  }
  const auto value = value_->get<std::int64_t>();
  if (value < min || value > max) return Expected(expected);
  return value;
}

absl::StatusOr<double> JsonField::Number() const {
  if (!value_->is_number()) return Expected("a number");
  return value_->get<double>();
}

absl::StatusOr<bool> JsonField::Bool() const {
  if (!value_->is_boolean()) return Expected("true or false");
  return value_->get<bool>();
}

absl::StatusOr<std::string_view> JsonField::String() const {
  if (!value_->is_string()) return Expected("a string");
  return std::string_view(value_->get_ref<const std::string&>());
}

// NOLINTNEXTLINE(bugprone-exception-escape): the library's destructor may allocate, to not recurse.
struct JsonDocument::Content {
  std::string file;
  json root;
};

JsonDocument::JsonDocument(std::unique_ptr<Content> content) : content_(std::move(content)) {}
JsonDocument::JsonDocument(JsonDocument&&) noexcept = default;
JsonDocument& JsonDocument::operator=(JsonDocument&&) noexcept = default;
JsonDocument::~JsonDocument() = default;

absl::StatusOr<JsonDocument> JsonDocument::Parse(std::string_view text, std::string_view file) {
  auto content = std::make_unique<Content>();
  content->file = std::string(file);
  TreeBuilder builder(content->file, &content->root);
  try {
    if (!json::sax_parse(text.begin(), text.end(), &builder)) return builder.status();
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(content->file, ": not valid JSON: ", Printable(error.what())));
  }
  return JsonDocument(std::move(content));
}

JsonField JsonDocument::root() const { return JsonField(&content_->root, &content_->file, ""); }

}  // namespace maskkv::model
