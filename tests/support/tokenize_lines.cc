// SPDX-License-Identifier: Apache-2.0
//
// tokenize_lines DIR plain|parse: reads one JSON string a line, writes one JSON object a line with
// its tokens under DIR/tokenizer.json and their text, or with the error. For tests that compare the
// tokenizer with another one over many texts.
#include <cstdio>
#include <iostream>
#include <string>

#include "core/model/tokenizer.h"
#include "nlohmann/json.hpp"

namespace {

using maskkv::model::SpecialText;
using maskkv::model::Tokenizer;

nlohmann::json Line(const Tokenizer& tokenizer, SpecialText special, const std::string& line) {
  const auto text = nlohmann::json::parse(line).get<std::string>();
  const auto ids = tokenizer.Encode(text, special);
  if (!ids.ok()) return {{"error", ids.status().message()}};
  return {{"ids", *ids}, {"text", tokenizer.Decode(*ids, /*skip_special=*/false)}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: tokenize_lines DIR plain|parse\n");
    return 2;
  }
  const auto tokenizer = Tokenizer::Load(argv[1]);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
    return 1;
  }
  const SpecialText special =
      std::string(argv[2]) == "parse" ? SpecialText::kParse : SpecialText::kPlain;
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << Line(*tokenizer, special, line).dump(-1, ' ', /*ensure_ascii=*/true) << '\n';
  }
  return 0;
}
