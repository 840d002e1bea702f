#include "runtime/queue/frame.h"

#include <array>
#include <random>
#include <string_view>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pyhost {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr Handle kLock(ObjectKind::kMutex, 3, 7);
constexpr Handle kBuffer(ObjectKind::kMemory, 9, 11);
constexpr HostId kSender(5, 2);

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}
std::string_view Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class FrameTest : public ::testing::Test {
 protected:
  std::span<std::byte> ring() { return ring_; }
  void Write(std::span<const Handle> handles, std::string_view payload) {
    FrameWriter writer(ring_.data(), FrameKind::kInline, handles, payload.size(), 42, kSender);
    writer.PutInline(Bytes(payload));
  }
  template <typename T>
  void Overwrite(size_t offset, T value) {
    std::memcpy(ring_.data() + offset, &value, sizeof(value));
  }
  void ExpectDataLoss(std::string_view what) {
    const absl::StatusOr<FrameView> frame = ParseFrame(ring());
    EXPECT_TRUE(absl::IsDataLoss(frame.status())) << frame.status();
    EXPECT_THAT(frame.status().message(), HasSubstr(what));
  }

  std::vector<std::byte> ring_ = std::vector<std::byte>(kMaxFrameBytes);
};

TEST_F(FrameTest, InlineMessageComesBack) {
  const std::array handles = {kLock, kBuffer};
  Write(handles, "payload");
  const absl::StatusOr<FrameView> frame = ParseFrame(ring());
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_EQ(frame->kind, FrameKind::kInline);
  EXPECT_EQ(frame->size, FrameBytes(FrameKind::kInline, 2, 7));
  EXPECT_EQ(frame->tag, 42u);
  EXPECT_EQ(frame->sender, kSender);
  ASSERT_EQ(frame->handle_count, 2u);
  EXPECT_EQ(frame->handle(0), kLock);
  EXPECT_EQ(frame->handle(1), kBuffer);
  EXPECT_EQ(Text(frame->inline_payload), "payload");
}

TEST_F(FrameTest, ObjectMessageComesBack) {
  const std::array handles = {kLock};
  FrameWriter writer(ring_.data(), FrameKind::kObject, handles, 0, 1, kSender);
  writer.PutPayloadObject(kBuffer, 1 << 20);
  const absl::StatusOr<FrameView> frame = ParseFrame(ring());
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_EQ(frame->payload_object, kBuffer);
  EXPECT_EQ(frame->payload_size, 1u << 20);
  ASSERT_EQ(frame->handle_count, 1u);
  EXPECT_EQ(frame->handle(0), kLock);
}

TEST_F(FrameTest, PartsAreGathered) {
  FrameWriter writer(ring_.data(), FrameKind::kInline, {}, 6, 0, kSender);
  writer.PutInline(Bytes("abc"));
  writer.PutInline({});
  writer.PutInline(Bytes("def"));
  EXPECT_EQ(Text(ParseFrame(ring())->inline_payload), "abcdef");
}

TEST_F(FrameTest, EmptyMessageIsAFrame) {
  Write({}, "");
  const absl::StatusOr<FrameView> frame = ParseFrame(ring());
  ASSERT_TRUE(frame.ok());
  EXPECT_EQ(frame->size, sizeof(FrameHeader));
  EXPECT_TRUE(frame->inline_payload.empty());
}

TEST_F(FrameTest, SkipFrameReachesToTheEnd) {
  WriteSkipFrame(ring_.data());
  const absl::StatusOr<FrameView> frame = ParseFrame(ring().first(1000));
  ASSERT_TRUE(frame.ok());
  EXPECT_EQ(frame->kind, FrameKind::kSkip);
  EXPECT_EQ(frame->size, 1000u);
}

TEST_F(FrameTest, FrameMayEndWithTheRing) {
  Write({}, "12345678");
  EXPECT_TRUE(ParseFrame(ring().first(32)).ok());
  EXPECT_TRUE(absl::IsDataLoss(ParseFrame(ring().first(31)).status()));
}

TEST_F(FrameTest, NonsenseIsDataLossThatNamesTheField) {
  Write({}, "payload");
  for (size_t left : {0, 7, 8, 23}) {
    EXPECT_TRUE(absl::IsDataLoss(ParseFrame(ring().first(left)).status())) << left;
  }
  Overwrite<uint16_t>(4, 0);
  ExpectDataLoss("kind is 0");
  Overwrite<uint16_t>(4, 4);
  ExpectDataLoss("kind is 4");
  Overwrite<uint16_t>(4, 3);
  ExpectDataLoss("skip size");
  Write({}, "payload");
  Overwrite<uint16_t>(6, kMaxFrameHandles + 1);
  ExpectDataLoss("handles is 4097");
  Write({}, "payload");
  Overwrite<uint32_t>(20, 0xffffffff);
  ExpectDataLoss("inline size is 4294967295");
  Write({}, "payload");
  Overwrite<uint32_t>(0, 24);
  ExpectDataLoss("size is 24");
}

TEST_F(FrameTest, PayloadObjectMustBeMemory) {
  FrameWriter writer(ring_.data(), FrameKind::kObject, {}, 0, 1, kSender);
  writer.PutPayloadObject(kLock, 5);
  ExpectDataLoss("payload object");
}

TEST_F(FrameTest, RandomDamageNeverLeavesTheRing) {
  std::mt19937 random(20260101);
  const std::array handles = {kLock, kBuffer};
  for (int round = 0; round < 100'000; ++round) {
    Write(handles, "some payload");
    const size_t size = random() % 80;
    for (int damage = random() % 4; damage >= 0; --damage) {
      ring_[random() % 64] = static_cast<std::byte>(random());
    }
    const absl::StatusOr<FrameView> frame = ParseFrame(ring().first(size));
    if (!frame.ok()) {
      ASSERT_TRUE(absl::IsDataLoss(frame.status()));
      continue;
    }
    ASSERT_LE(frame->size, size);
    if (frame->kind == FrameKind::kSkip) continue;
    const std::byte* end = ring_.data() + size;
    ASSERT_LE(frame->handle_bytes + frame->handle_count * sizeof(Handle), end);
    ASSERT_LE(frame->inline_payload.data() + frame->inline_payload.size(), end);
  }
}

}  // namespace
}  // namespace pyhost
