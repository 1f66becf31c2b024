// SPDX-License-Identifier: Apache-2.0
//
// ChatML as Qwen2.5 publishes it, which Dream took over:
//
//   <|im_start|> ROLE "\n" TEXT <|im_end|> "\n"
//
// for each message, after a system message of the template's own where the first is none, then
// <|im_start|> "assistant\n". TEXT is kept as it is. Tools are not rendered: no caller names any.
#include <algorithm>
#include <array>

#include "core/base/status_macros.h"
#include "core/model/chat_format.h"

namespace maskkv::model {
namespace {

// The published source (Qwen2.5, Apache-2.0); DEFAULT_SYSTEM stands where checkpoints differ.
constexpr std::string_view kSource = R"jinja({%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'DEFAULT_SYSTEM' }}
    {%- endif %}
    {{- "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>system\nDEFAULT_SYSTEM<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\n<tool_call>\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- message.content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
)jinja";

constexpr std::string_view kPlaceholder = "DEFAULT_SYSTEM";
constexpr std::array<std::string_view, 2> kDefaultSystems = {
    "You are a helpful assistant.",
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."};

std::string SourceWith(std::string_view default_system) {
  std::string source(kSource);
  for (std::size_t at = 0; (at = source.find(kPlaceholder, at)) != std::string::npos;) {
    source.replace(at, kPlaceholder.size(), default_system);
    at += default_system.size();
  }
  return CanonicalJinja(source);
}

}  // namespace

absl::StatusOr<std::optional<ChatFormat>> ChatMlFormat(std::string_view canonical,
                                                       std::string_view where,
                                                       const Tokenizer& tokenizer) {
  const auto* system = std::ranges::find_if(kDefaultSystems, [&](std::string_view default_system) {
    return canonical == SourceWith(default_system);
  });
  if (system == kDefaultSystems.end()) return std::nullopt;
  ChatFormat format;
  format.default_system = *system;
  MASKKV_ASSIGN_OR_RETURN(format.start, SpecialId(tokenizer, where, "<|im_start|>"));
  format.text_break = std::string(1, '\n');
  MASKKV_ASSIGN_OR_RETURN(format.end_of_turn, SpecialId(tokenizer, where, "<|im_end|>"));
  format.after_turn = format.text_break;
  return format;
}

}  // namespace maskkv::model
