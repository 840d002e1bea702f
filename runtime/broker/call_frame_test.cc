#include "runtime/broker/call_frame.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace pyhost {
namespace {

std::vector<std::byte> Bytes(const auto& header, std::string_view rest) {
  std::vector<std::byte> bytes;
  const auto head = AsBytes(header);
  bytes.assign(head.begin(), head.end());
  for (char c : rest) bytes.push_back(static_cast<std::byte>(c));
  return bytes;
}

std::string Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

CallHeader Call(CallKind kind, uint64_t function_size, uint8_t flags = 0) {
  CallHeader header{};
  header.kind = kind;
  header.flags = flags;
  header.function_size = function_size;
  return header;
}

TEST(CallFrameTest, SplitsFunctionAndArguments) {
  const auto bytes = Bytes(Call(CallKind::kMap, 3), "funargs");
  const auto call = ParseCall(bytes);
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->kind, CallKind::kMap);
  EXPECT_EQ(Text(call->function), "fun");
  EXPECT_EQ(Text(call->arguments), "args");
}

TEST(CallFrameTest, FunctionInMemoryLeavesAllBytesToTheArguments) {
  const auto bytes = Bytes(Call(CallKind::kOne, 5000, kFunctionInMemory), "args");
  const auto call = ParseCall(bytes);
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->function_size, 5000u);
  EXPECT_TRUE(call->function.empty());
  EXPECT_EQ(Text(call->arguments), "args");
}

TEST(CallFrameTest, NonsenseIsDataLoss) {
  EXPECT_EQ(ParseCall({}).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ParseCall(Bytes(Call(CallKind::kOne, 5), "1234")).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ParseCall(Bytes(Call(static_cast<CallKind>(77), 0), "")).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ParseReply({}).status().code(), absl::StatusCode::kDataLoss);
  ReplyHeader lost{};
  lost.kind = ReplyKind::kLost;
  EXPECT_EQ(ParseReply(Bytes(lost, "short")).status().code(), absl::StatusCode::kDataLoss);
  ReplyHeader unknown{};
  unknown.kind = static_cast<ReplyKind>(9);
  EXPECT_EQ(ParseReply(Bytes(unknown, "")).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace pyhost
