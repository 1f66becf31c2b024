// SPDX-License-Identifier: Apache-2.0
#include "services/maskkv/metrics_page.h"

#include <curl/curl.h>

#include <charconv>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_format.h"

namespace maskkv::cli {
namespace {

constexpr long kTimeoutSeconds = 5;

// NAME="VALUE",... up to the closing brace; nullopt if malformed. Moves `text` past it.
std::optional<std::map<std::string, std::string>> ParseLabels(std::string_view& text) {
  std::map<std::string, std::string> labels;
  while (!text.empty() && text.front() != '}') {
    const std::size_t equals = text.find("=\"");
    if (equals == std::string_view::npos) return std::nullopt;
    const std::string name(text.substr(0, equals));
    text.remove_prefix(equals + 2);
    std::string value;
    while (!text.empty() && text.front() != '"') {
      if (text.front() == '\\' && text.size() > 1) {
        text.remove_prefix(1);
        value += text.front() == 'n' ? '\n' : text.front();
      } else {
        value += text.front();
      }
      text.remove_prefix(1);
    }
    if (text.empty()) return std::nullopt;
    text.remove_prefix(1);
    if (!text.empty() && text.front() == ',') text.remove_prefix(1);
    labels.emplace(name, std::move(value));
  }
  if (text.empty()) return std::nullopt;
  text.remove_prefix(1);
  return labels;
}

std::size_t Append(char* data, std::size_t size, std::size_t count, void* target) {
  std::string& text = *static_cast<std::string*>(target);
  const std::size_t bytes = size * count;
  if (text.size() + bytes > MetricsPage::kMaxBytes) return 0;  // ends the transfer
  text.append(data, bytes);
  return bytes;
}

}  // namespace

MetricsPage MetricsPage::Parse(std::string_view text) {
  MetricsPage page;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.empty() || line.front() == '#') continue;
    const std::string name(line.substr(0, line.find_first_of("{ ")));
    line.remove_prefix(name.size());
    Sample sample;
    if (!line.empty() && line.front() == '{') {
      line.remove_prefix(1);
      auto labels = ParseLabels(line);
      if (!labels) continue;
      sample.labels = std::move(*labels);
    }
    while (!line.empty() && line.front() == ' ') line.remove_prefix(1);
    const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), sample.value);
    if (error != std::errc() || end == line.data()) continue;
    page.samples_[name].push_back(std::move(sample));
  }
  return page;
}

absl::StatusOr<MetricsPage> MetricsPage::Fetch(const std::string& address) {
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(),
                                                                 &curl_easy_cleanup);
  if (curl == nullptr) return absl::InternalError("HTTP client: expected to start, found none");
  const std::string url = "http://" + address + "/metrics";
  std::string body;
  curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "http");
  curl_easy_setopt(curl.get(), CURLOPT_NOPROXY, "*");
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT, kTimeoutSeconds);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, &Append);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &body);
  const CURLcode code = curl_easy_perform(curl.get());
  if (code == CURLE_WRITE_ERROR) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "%s: expected at most %d bytes of metrics, found more", address, kMaxBytes));
  }
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  if (code != CURLE_OK || status != 200) {
    return absl::UnavailableError(absl::StrFormat(
        "%s: expected metrics, found %s", address,
        code != CURLE_OK ? curl_easy_strerror(code) : absl::StrFormat("HTTP status %d", status)));
  }
  return Parse(body);
}

void MetricsPage::Add(const MetricsPage& other) {
  for (const auto& [name, samples] : other.samples_) {
    std::vector<Sample>& own = samples_[name];
    own.insert(own.end(), samples.begin(), samples.end());
  }
}

const std::vector<Sample>& MetricsPage::Samples(std::string_view name) const {
  static const std::vector<Sample> none;
  const auto found = samples_.find(name);
  return found == samples_.end() ? none : found->second;
}

double MetricsPage::Sum(std::string_view name, std::string_view label,
                        std::string_view value) const {
  double sum = 0;
  for (const Sample& sample : Samples(name)) {
    if (!label.empty()) {
      const auto found = sample.labels.find(std::string(label));
      if (found == sample.labels.end() || found->second != value) continue;
    }
    sum += sample.value;
  }
  return sum;
}

}  // namespace maskkv::cli
