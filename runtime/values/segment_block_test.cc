// Shared arrays: who keeps the memory alive, and for how long.

#include "runtime/values/segment_block.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/broker/object_kinds.h"
#include "runtime/queue/queue.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/segment/object_table.h"
#include "runtime/testing/child.h"
#include "runtime/testing/temp_segment.h"

namespace pyhost {
namespace {

using ::testing::ElementsAre;
using ::testing::Each;
using ::testing::HasSubstr;

class SharedArrayTest : public ::testing::Test {
 protected:
  SharedArrayTest() { RegisterObjectKinds(); }

  template <typename T>
  SharedArray<T> New(std::vector<int64_t> shape) {
    return *SharedArray<T>::From(*NewSharedArray(*segment_, segment_.me(), kDTypeOf<T>, std::move(shape)));
  }
  Queue NewQueue() {
    Queue queue = *Queue::Create(*segment_, segment_.me());
    segment_->refs().Adopt(queue.handle(), segment_.me());
    return queue;
  }
  // `value` as the payload of a message, without out-of-band buffers.
  static absl::Status Push(Queue& queue, const EncodedValue& value) {
    const uint64_t no_buffers = 0;
    const std::array<std::span<const std::byte>, 2> parts = {std::as_bytes(std::span(&no_buffers, 1)),
                                                             std::as_bytes(std::span(value.bytes))};
    const std::vector<Handle> handles = HandlesOf(value);
    return queue.Push({.parts = parts, .handles = handles}, Wait::Try());
  }
  template <typename T>
  absl::StatusOr<T> Pop(Queue& queue) {
    absl::StatusOr<Message> message = queue.Pop(Wait::Try());
    if (!message.ok()) return message.status();
    absl::StatusOr<ReceivedValue> received =
        ReceivedValue::Open(*segment_, segment_.me(), *message, message->payload());
    if (!received.ok()) return received.status();
    return DecodeValue<T>(received->pickle(), received->context());
  }
  uint32_t objects() { return segment_.objects().size(); }

  testing::TempSegment segment_;
};

TEST_F(SharedArrayTest, StartsAsZerosInTheShapeAskedFor) {
  SharedArray<float> array = New<float>({3, 4});
  EXPECT_THAT(array.shape(), ElementsAre(3, 4));
  EXPECT_EQ(array.size(), 12u);
  EXPECT_THAT(array.span(), Each(0.0f));
  EXPECT_TRUE(array.shared());
  array(1, 2) = 5;
  EXPECT_EQ(array[6], 5);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(array.data()) % 16, 0u);
}

TEST_F(SharedArrayTest, MemoryGoesWithTheLastHandle) {
  const uint32_t before = objects();
  std::optional<SharedArray<int>> first = New<int>({100});
  std::optional<SharedArray<int>> second = first;
  first.reset();
  EXPECT_EQ(objects(), before + 1);
  (*second)[99] = 1;
  second.reset();
  EXPECT_EQ(objects(), before);
}

TEST_F(SharedArrayTest, ShapesThatAreNoneAreErrors) {
  const auto make = [&](std::vector<int64_t> shape) {
    return NewSharedArray(*segment_, segment_.me(), DType::kFloat64, std::move(shape)).status();
  };
  EXPECT_EQ(make({-1}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(make({INT64_MAX, 8}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(make({int64_t{1} << 40}).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(make({}).ok());      // One element.
  EXPECT_TRUE(make({0, 5}).ok());  // None.
}

TEST_F(SharedArrayTest, TravelsByHandleAndKeepsTypeShapeAndMemory) {
  Queue queue = NewQueue();
  SharedArray<double> sent = New<double>({2, 3});
  sent(1, 1) = 0.5;
  ASSERT_TRUE(Push(queue, *EncodeValue(sent)).ok());
  absl::StatusOr<SharedArray<double>> received = Pop<SharedArray<double>>(queue);
  ASSERT_TRUE(received.ok()) << received.status();
  EXPECT_EQ(received->data(), sent.data());
  EXPECT_THAT(received->shape(), ElementsAre(2, 3));
}

TEST_F(SharedArrayTest, AMessageOnItsWayKeepsTheMemory) {
  Queue queue = NewQueue();
  const uint32_t before = objects();
  {
    SharedArray<int> array = New<int>({1000});
    array[5] = 7;
    ASSERT_TRUE(Push(queue, *EncodeValue(array)).ok());
  }
  {
    absl::StatusOr<SharedArray<int>> array = Pop<SharedArray<int>>(queue);
    ASSERT_TRUE(array.ok()) << array.status();
    EXPECT_EQ((*array)[5], 7);
  }
  EXPECT_LE(objects(), before + 1);  // The queue may keep its chunk.
}

TEST_F(SharedArrayTest, OneThatIsDecodedInPartStaysReleased) {
  Queue queue = NewQueue();
  SharedArray<int> array = New<int>({10});
  ASSERT_TRUE(Push(queue, *EncodeValue(array)).ok());
  const absl::Status status = Pop<SharedArray<float>>(queue).status();
  EXPECT_EQ(status.message(), "expected an array of float32, got int32[10]");
  EXPECT_EQ(array.any().block().use_count(), 1);
}

TEST_F(SharedArrayTest, AReadOnlyViewStaysOne) {
  Queue queue = NewQueue();
  SharedArray<int> array = New<int>({10});
  const SharedArray<const int> view = array;
  EXPECT_EQ(view.data(), array.data());
  ASSERT_TRUE(Push(queue, *EncodeValue(view)).ok());
  EXPECT_THAT(std::string(Pop<SharedArray<int>>(queue).status().message()), HasSubstr("expected a writable array"));
  ASSERT_TRUE(Push(queue, *EncodeValue(view)).ok());
  EXPECT_TRUE(Pop<SharedArray<const int>>(queue).ok());
}

TEST_F(SharedArrayTest, RowsArePartOfTheSameMemory) {
  Queue queue = NewQueue();
  SharedArray<float> array = New<float>({4, 3});
  absl::StatusOr<SharedArray<float>> rows = array.Rows(1, 2);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(rows->data(), array.data() + 3);
  EXPECT_THAT(rows->shape(), ElementsAre(2, 3));
  ASSERT_TRUE(Push(queue, *EncodeValue(*rows)).ok());
  EXPECT_EQ(Pop<SharedArray<float>>(queue)->data(), array.data() + 3);
  EXPECT_EQ(array.Rows(4, 0)->size(), 0u);
  EXPECT_EQ(array.Rows(3, 2).status().message(), "no 2 rows from row 3 on in float32[4, 3]");
  EXPECT_FALSE(array.Rows(-1, 1).ok());
  EXPECT_FALSE(New<float>({}).Rows(0, 1).ok());
}

TEST_F(SharedArrayTest, TheSameArrayTwiceIsCarriedOnce) {
  SharedArray<int> array = New<int>({10});
  const EncodedValue encoded = *EncodeArguments(array, std::vector{array, array});
  EXPECT_EQ(encoded.handles.size(), 1u);
}

TEST_F(SharedArrayTest, ADeadHolderLetsGo) {
  Queue queue = NewQueue();
  SharedArray<int> array = New<int>({1000});
  ASSERT_TRUE(Push(queue, *EncodeValue(array)).ok());
  const testing::ChildEnd end = segment_.RunHost([&](HostId self) {
    Queue mine = *Queue::Open(*segment_, self, queue.handle());
    absl::StatusOr<Message> message = mine.Pop(Wait::Try());
    absl::StatusOr<ReceivedValue> received = ReceivedValue::Open(*segment_, self, *message, message->payload());
    absl::StatusOr<SharedArray<int>> view = DecodeValue<SharedArray<int>>(received->pickle(), received->context());
    (*view)[7] = 9;
    kill(getpid(), SIGKILL);
  });
  EXPECT_EQ(end, testing::Killed(SIGKILL));
  EXPECT_EQ(array[7], 9);
  const uint32_t before = objects();
  array = SharedArray<int>();
  EXPECT_EQ(objects(), before - 1);
}

TEST_F(SharedArrayTest, AForkedProcessGivesNothingBack) {
  SharedArray<int> array = New<int>({1000});
  const pid_t child = fork();
  if (child == 0) {
    array = SharedArray<int>();
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(segment_.objects().IsHeld(Handle::FromValue(array.any().block()->handle()), segment_.me()));
}

TEST_F(SharedArrayTest, PayloadsThatAreNoneAreErrors) {
  Queue queue = NewQueue();
  const auto open = [&](std::string payload, std::vector<Handle> handles) {
    const std::array<std::span<const std::byte>, 1> parts = {std::as_bytes(std::span(payload))};
    EXPECT_TRUE(queue.Push({.parts = parts, .handles = handles}, Wait::Try()).ok());
    Message message = *queue.Pop(Wait::Try());
    return ReceivedValue::Open(*segment_, segment_.me(), message, message.payload()).status();
  };
  const SharedArray<int> array = New<int>({4});
  const Handle memory = Handle::FromValue(array.any().block()->handle());
  const auto header = [](std::vector<uint64_t> words) {
    return std::string(reinterpret_cast<const char*>(words.data()), words.size() * sizeof(uint64_t));
  };
  EXPECT_EQ(open("abc", {}).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(open(header({1}), {}).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(open(header({1}), {memory}).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(open(header({1, 17}), {memory}).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(open(header({1, 16}), {queue.handle()}).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(open(header({UINT64_MAX}), {memory}).code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(open(header({1, 16}), {memory, queue.handle()}).ok());
}

TEST(PrivateArrayTest, OneOutsideOfSharedMemoryIsCopiedIntoThePickle) {
  const float numbers[] = {1, 2, 3};
  const AnyArray array = AnyArray::CopyOf(DType::kFloat32, {3}, numbers);
  EXPECT_FALSE(array.shared());
  const EncodedValue encoded = *EncodeValue(array);
  EXPECT_TRUE(encoded.handles.empty());
  EXPECT_THAT(encoded.bytes, HasSubstr("pyhost.arrays"));
}

TEST(PrivateArrayTest, ArraysStayInsideOfTheirMemory) {
  const AnyArray array = AnyArray::CopyOf(DType::kUint8, {16}, "0123456789abcdef");
  const SharedHandle& block = array.block();
  EXPECT_TRUE(AnyArray::Over(block, 8, DType::kFloat64, {1}).ok());
  EXPECT_FALSE(AnyArray::Over(block, 9, DType::kFloat64, {1}).ok());
  EXPECT_FALSE(AnyArray::Over(block, 4, DType::kFloat64, {1}).ok());  // Not aligned.
  EXPECT_FALSE(AnyArray::Over(block, 17, DType::kUint8, {0}).ok());
  EXPECT_FALSE(AnyArray::Over(block, 0, DType::kUint8, {-1}).ok());
  EXPECT_FALSE(AnyArray::Over(block, 0, DType::kUint8, {INT64_MAX, INT64_MAX}).ok());
  EXPECT_TRUE(AnyArray::Over(block, 0, DType::kUint8, {INT64_MAX, INT64_MAX, 0}).ok());
}

}  // namespace
}  // namespace pyhost
