// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/raw_call.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>
#include <grpcpp/channel.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "services/common/status.h"

namespace maskkv::testing {
namespace {

grpc::ByteBuffer ToBuffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return {&slice, 1};
}

std::string ToString(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

// A message of the library's own generated types, which have no installed headers.
std::unique_ptr<google::protobuf::Message> NewMessage(const std::string& type) {
  const auto* const descriptor =
      google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(type);
  if (descriptor == nullptr) return nullptr;
  return std::unique_ptr<google::protobuf::Message>(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(descriptor)->New());
}

}  // namespace

RawAnswer RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                  const std::string& request) {
  grpc::CompletionQueue queue;
  const auto wait = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  const auto stream = grpc::GenericStub(channel).PrepareCall(&context, method, &queue);
  RawAnswer answer;
  stream->StartCall(nullptr);
  if (wait()) {
    stream->WriteLast(ToBuffer(request), {}, nullptr);
    if (wait()) {
      for (grpc::ByteBuffer part; stream->Read(&part, nullptr), wait();) {
        answer.messages.push_back(ToString(part));
      }
    }
  }
  grpc::Status status;
  stream->Finish(&status, nullptr);
  wait();
  answer.status = services::FromGrpc(status);
  queue.Shutdown();
  while (wait()) {
  }
  return answer;
}

std::string HealthOf(const std::shared_ptr<grpc::Channel>& channel, const std::string& service) {
  std::string request;  // grpc.health.v1.HealthCheckRequest{service}
  if (!service.empty()) request = std::string("\x0A") + static_cast<char>(service.size()) + service;
  const RawAnswer answer = RawCall(channel, "/grpc.health.v1.Health/Check", request);
  if (!answer.status.ok()) return absl::StatusCodeToString(answer.status.code());
  if (answer.messages.size() != 1) return "NO_MESSAGE";
  if (answer.messages[0] == std::string("\x08\x01")) return "SERVING";
  return answer.messages[0] == std::string("\x08\x02") ? "NOT_SERVING" : "UNKNOWN";
}

std::vector<std::string> ListServices(const std::shared_ptr<grpc::Channel>& channel) {
  const auto request = NewMessage("grpc.reflection.v1alpha.ServerReflectionRequest");
  const auto response = NewMessage("grpc.reflection.v1alpha.ServerReflectionResponse");
  if (request == nullptr || response == nullptr) return {"no reflection types"};
  google::protobuf::TextFormat::ParseFromString("list_services: \"\"", request.get());
  const RawAnswer answer =
      RawCall(channel, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
              request->SerializeAsString());
  if (!answer.status.ok()) return {answer.status.ToString()};
  std::vector<std::string> names;
  for (const std::string& message : answer.messages) {
    if (!response->ParseFromString(message)) continue;
    std::string text = response->ShortDebugString();
    for (std::size_t at; (at = text.find("service { name: \"")) != std::string::npos;) {
      text.erase(0, at + std::string("service { name: \"").size());
      names.push_back(text.substr(0, text.find('"')));
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace maskkv::testing
