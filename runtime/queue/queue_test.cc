// What a queue promises, in one process and across processes.  Deaths: queue_crash_test.cc.

#include "runtime/queue/queue.h"

#include <array>
#include <atomic>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/queue/queue_test_util.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/testing/temp_segment.h"

namespace pyhost {
namespace {

using ::pyhost::testing::Child;
using ::pyhost::testing::Exited;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class QueueTest : public QueueFixture {};

TEST_F(QueueTest, MessagesComeOutInOrder) {
  Queue queue = NewQueue();
  for (std::string_view text : {"a", "b", "", "c"}) ASSERT_OK(Push(queue, text));
  EXPECT_EQ(queue.depth(), 4u);
  EXPECT_EQ(PopText(queue), "a");
  EXPECT_EQ(PopText(queue), "b");
  EXPECT_EQ(PopText(queue), "");
  EXPECT_EQ(PopText(queue), "c");
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.popped(), 4u);
}

TEST_F(QueueTest, TagAndSenderArrive) {
  Queue queue = NewQueue();
  ASSERT_OK(queue.Push({.parts = {}, .handles = {}, .tag = 77}, Wait::Try()));
  absl::StatusOr<Message> message = queue.Pop(Wait::Try());
  ASSERT_OK(message.status());
  EXPECT_EQ(message->tag(), 77u);
  EXPECT_EQ(message->sender(), me());
  EXPECT_TRUE(message->payload().empty());
}

TEST_F(QueueTest, PartsArriveAsOnePayload) {
  Queue queue = NewQueue();
  const std::string large(100'000, 'x');
  for (const std::string& middle : {std::string("-"), large}) {
    const std::array parts = {Bytes("head"), std::span<const std::byte>(), Bytes(middle), Bytes("tail")};
    ASSERT_OK(queue.Push({.parts = parts, .handles = {}}, Wait::Try()));
    EXPECT_EQ(PopText(queue), "head" + middle + "tail");
  }
}

TEST_F(QueueTest, EverySizeArrivesWhole) {
  Queue queue = NewQueue();
  for (size_t size : {1, 7, 8, 9, 127, 128, 129, 4000, 4096, 16383, 16384, 16385, 1 << 20, 5 << 20}) {
    const std::string text = Pattern(size);
    ASSERT_OK(Push(queue, text));
    EXPECT_EQ(PopText(queue), text) << size;
  }
}

TEST_F(QueueTest, LargePayloadIsReadInPlace) {
  Queue queue = NewQueue();
  ASSERT_OK(Push(queue, Pattern(1 << 20)));
  absl::StatusOr<Message> message = queue.Pop(Wait::Try());
  ASSERT_OK(message.status());
  ASSERT_TRUE(message->payload_object());
  EXPECT_EQ(message->payload().data(), segment().objects().Block(message->payload_object())->data());
}

TEST_F(QueueTest, MovedMessageKeepsItsPayload) {
  Queue queue = NewQueue();
  ASSERT_OK(Push(queue, "small"));
  ASSERT_OK(Push(queue, Pattern(1000)));
  std::vector<Message> kept;
  for (int i = 0; i < 2; ++i) kept.push_back(*queue.Pop(Wait::Try()));
  kept.reserve(100);
  EXPECT_EQ(Text(kept[0]), "small");
  EXPECT_EQ(Text(kept[1]), Pattern(1000));
  kept[1] = std::move(kept[0]);
  EXPECT_EQ(Text(kept[1]), "small");
}

TEST_F(QueueTest, ManyMessagesPassThroughManyChunks) {
  Queue queue = NewQueue();
  constexpr int kMessages = 50'000;
  for (int i = 0; i < kMessages; ++i) ASSERT_OK(Push(queue, Pattern(i % 300, i)));
  EXPECT_EQ(queue.depth(), static_cast<uint64_t>(kMessages));
  for (int i = 0; i < kMessages; ++i) ASSERT_EQ(PopText(queue), Pattern(i % 300, i));
  EXPECT_LE(Objects(), 3u) << "finished chunks are freed";
}

TEST_F(QueueTest, SteadyTrafficNeedsNoNewMemory) {
  Queue queue = NewQueue();
  for (int i = 0; i < 10; ++i) ASSERT_OK(Push(queue, Pattern(100)));
  const SegmentUsage before = segment().Usage();
  for (int i = 0; i < 10'000; ++i) {
    ASSERT_OK(Push(queue, Pattern(100, i)));
    PopText(queue);
  }
  EXPECT_EQ(segment().Usage().used_bytes, before.used_bytes);
  EXPECT_EQ(segment().Usage().objects, before.objects);
}

TEST_F(QueueTest, DroppedQueueGivesEverythingBack) {
  const SegmentUsage before = segment().Usage();
  for (int round = 0; round < 100; ++round) {
    Queue queue = NewQueue();
    for (int i = 0; i < 20; ++i) ASSERT_OK(Push(queue, Pattern(i * 3000)));
    PopText(queue);
    segment().refs().Release(queue.handle(), me());
  }
  EXPECT_EQ(segment().Usage().used_bytes, before.used_bytes);
  EXPECT_EQ(segment().Usage().objects, before.objects);
  EXPECT_EQ(segment().refs().size(), 0u);
}

// ---- Bounds, deadlines, closing --------------------------------------------------------------------------------

TEST_F(QueueTest, FullQueueRefusesUntilSomethingIsTaken) {
  Queue queue = NewQueue(2);
  ASSERT_OK(Push(queue, "a"));
  ASSERT_OK(Push(queue, "b"));
  const absl::Status full = Push(queue, "c");
  EXPECT_TRUE(absl::IsDeadlineExceeded(full)) << full;
  EXPECT_THAT(full.message(), HasSubstr(queue.handle().ToString()));
  EXPECT_EQ(PopText(queue), "a");
  ASSERT_OK(Push(queue, "c"));
  EXPECT_EQ(queue.depth(), 2u);
}

TEST_F(QueueTest, DeadlineEndsAWait) {
  Queue queue = NewQueue(1);
  const absl::Time start = absl::Now();
  EXPECT_TRUE(absl::IsDeadlineExceeded(queue.Pop({Deadline::After(absl::Milliseconds(60)), nullptr}).status()));
  ASSERT_OK(Push(queue, "a"));
  const absl::Status pushed = Push(queue, "b", {Deadline::After(absl::Milliseconds(60)), nullptr});
  EXPECT_TRUE(absl::IsDeadlineExceeded(pushed));
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(120));
  EXPECT_EQ(queue.depth(), 1u);
}

TEST_F(QueueTest, ClosedQueueCanBeDrainedAndNoMore) {
  Queue queue = NewQueue();
  ASSERT_OK(Push(queue, "left"));
  queue.Close();
  queue.Close();
  EXPECT_TRUE(queue.closed());
  EXPECT_TRUE(absl::IsFailedPrecondition(Push(queue, "late")));
  EXPECT_EQ(PopText(queue), "left");
  EXPECT_TRUE(absl::IsOutOfRange(queue.Pop(Wait::Forever()).status()));
}

TEST_F(QueueTest, CloseWakesAllWhoWait) {
  Queue queue = NewQueue(1);
  ASSERT_OK(Push(queue, "a"));
  Queue empty = NewQueue();
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] { EXPECT_TRUE(absl::IsFailedPrecondition(Push(queue, "b", Wait::Forever()))); });
    threads.emplace_back([&] { EXPECT_TRUE(absl::IsOutOfRange(empty.Pop(Wait::Forever()).status())); });
  }
  while (Sleepers(queue) + Sleepers(empty) < 6) absl::SleepFor(absl::Milliseconds(1));
  queue.Close();
  empty.Close();
  for (std::thread& thread : threads) thread.join();
}

TEST_F(QueueTest, TooMuchIsRefusedAndNothingPushed) {
  Queue queue = NewQueue();
  const std::vector<Handle> handles(Queue::kMaxHandles + 1, queue.handle());
  EXPECT_TRUE(absl::IsInvalidArgument(queue.Push({.parts = {}, .handles = handles}, Wait::Try())));
  const std::byte byte{};
  const std::vector<std::span<const std::byte>> parts(3, {&byte, Queue::kMaxMessageBytes / 2});
  EXPECT_TRUE(absl::IsInvalidArgument(queue.Push({.parts = parts, .handles = {}}, Wait::Try())));
  EXPECT_TRUE(queue.empty());
}

TEST_F(QueueTest, ExhaustedMemoryIsAnErrorAndTheQueueGoesOn) {
  Queue queue = NewQueue();
  ASSERT_OK(Push(queue, "first"));
  const std::string huge(40 << 20, 'x');  // of a limit of 64 MiB
  ASSERT_OK(Push(queue, huge));
  const absl::Status status = Push(queue, huge);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_EQ(PopText(queue), "first");
  EXPECT_EQ(PopText(queue), huge);
  ASSERT_OK(Push(queue, huge));
  EXPECT_EQ(PopText(queue), huge);
}

TEST_F(QueueTest, HandleOfSomethingElseIsNoQueue) {
  absl::StatusOr<Handle> memory = segment().objects().Create(ObjectKind::kMemory, 64, me());
  EXPECT_TRUE(absl::IsInvalidArgument(Queue::Open(segment(), me(), *memory).status()));
  Queue queue = NewQueue();
  const Handle old = queue.handle();
  segment().refs().Release(old, me());
  EXPECT_TRUE(absl::IsNotFound(Queue::Open(segment(), me(), old).status()));
}

TEST_F(QueueTest, CorruptChunkIsDataLoss) {
  Queue queue = NewQueue();
  ASSERT_OK(Push(queue, "a"));
  QueueState* state = StateOf(queue);
  const uint64_t chunk = state->heads[0].chunk;
  for (uint64_t nonsense : {uint64_t{0}, chunk + 1, ~uint64_t{63}, uint64_t{1} << 62}) {
    state->heads[0].chunk = nonsense;
    EXPECT_TRUE(absl::IsDataLoss(queue.Pop(Wait::Try()).status()));
  }
  state->heads[0].chunk = chunk;
  state->heads[0].at = 0xfffffff8;
  EXPECT_TRUE(absl::IsDataLoss(queue.Pop(Wait::Try()).status()));
  state->heads[0].at = 0;
  EXPECT_EQ(PopText(queue), "a");
  state->tails[StateOf(queue)->tail.load() & 1].chunk = 64;
  EXPECT_TRUE(absl::IsDataLoss(Push(queue, "b")));
}

// ---- Batches ------------------------------------------------------------------------------------------------------

TEST_F(QueueTest, BatchStaysInOrder) {
  Queue queue = NewQueue();
  std::vector<std::string> texts;
  for (int i = 0; i < 200; ++i) texts.push_back(Pattern(i * 97, i));
  EXPECT_EQ(PushAll(queue, texts, Wait::Try()), texts.size());
  std::vector<std::string> popped;
  while (!queue.empty()) {
    absl::StatusOr<std::vector<Message>> batch = queue.PopBatch(90, Wait::Try());
    ASSERT_OK(batch.status());
    EXPECT_LE(batch->size(), 90u);
    for (const Message& message : *batch) popped.emplace_back(Text(message));
  }
  EXPECT_EQ(popped, texts);
}

TEST_F(QueueTest, BatchFillsABoundedQueueAndSaysHowFarItCame) {
  Queue queue = NewQueue(3);
  absl::Status status;
  EXPECT_EQ(PushAll(queue, {"a", "b", "c", "d"}, Wait::Try(), &status), 3u);
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_EQ(queue.PopBatch(10, Wait::Try())->size(), 3u);
}

TEST_F(QueueTest, BatchLargerThanABoundedQueuePassesThroughIt) {
  Queue queue = NewQueue(2);
  std::vector<std::string> texts;
  for (int i = 0; i < 100; ++i) texts.push_back(std::to_string(i));
  std::thread producer([&] { EXPECT_EQ(PushAll(queue, texts, Wait::Forever()), texts.size()); });
  for (const std::string& text : texts) EXPECT_EQ(PopText(queue, Wait::Forever()), text);
  producer.join();
}

TEST_F(QueueTest, EmptyBatchesAreAllowedOrRefused) {
  Queue queue = NewQueue();
  EXPECT_EQ(PushAll(queue, {}, Wait::Try()), 0u);
  EXPECT_TRUE(absl::IsInvalidArgument(queue.PopBatch(0, Wait::Try()).status()));
  EXPECT_TRUE(absl::IsDeadlineExceeded(queue.PopBatch(5, Wait::Try()).status()));
}

TEST_F(QueueTest, MessagesBeforeABadOneInABatchArePushed) {
  Queue queue = NewQueue();
  const std::array good = {Bytes("good")};
  const std::vector<Handle> too_many(Queue::kMaxHandles + 1, queue.handle());
  const std::array messages = {MessageView{.parts = good, .handles = {}},
                               MessageView{.parts = {}, .handles = too_many}};
  absl::Status status;
  EXPECT_EQ(queue.PushBatch(messages, Wait::Try(), &status), 1u);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_EQ(PopText(queue), "good");
}

// ---- Handles in messages --------------------------------------------------------------------------------------------

TEST_F(QueueTest, MessageKeepsAliveWhatItCarries) {
  Queue queue = NewQueue();
  const Handle buffer = NewMemory();
  const std::array handles = {buffer};
  ASSERT_OK(queue.Push({.parts = {}, .handles = handles}, Wait::Try()));
  segment().refs().Release(buffer, me());
  EXPECT_OK(segment().objects().Block(buffer).status()) << "in transit";
  {
    absl::StatusOr<Message> message = queue.Pop(Wait::Try());
    ASSERT_OK(message.status());
    EXPECT_THAT(message->handles(), ElementsAre(buffer));
    EXPECT_TRUE(segment().objects().IsHeld(buffer, me()));
  }
  EXPECT_TRUE(absl::IsNotFound(segment().objects().Block(buffer).status())) << "message dropped";
}

TEST_F(QueueTest, DroppedMessageLeavesAloneWhatTheProcessHoldsOtherwise) {
  Queue queue = NewQueue();
  const Handle buffer = NewMemory();
  const std::array handles = {buffer};
  ASSERT_OK(queue.Push({.parts = {}, .handles = handles}, Wait::Try()));
  queue.Pop(Wait::Try()).IgnoreError();
  EXPECT_TRUE(segment().objects().IsHeld(buffer, me()));
}

TEST_F(QueueTest, TakenHandlesAreTheCallers) {
  Queue queue = NewQueue();
  const Handle buffer = NewMemory();
  const std::array handles = {buffer};
  ASSERT_OK(queue.Push({.parts = {}, .handles = handles}, Wait::Try()));
  segment().refs().Release(buffer, me());
  EXPECT_THAT(queue.Pop(Wait::Try())->TakeHandles(), ElementsAre(buffer));
  EXPECT_OK(segment().objects().Block(buffer).status());
  segment().refs().Release(buffer, me());
  EXPECT_TRUE(absl::IsNotFound(segment().objects().Block(buffer).status()));
}

TEST_F(QueueTest, QueueInAQueueIsFreedWithIt) {
  const uint32_t before = segment().Usage().objects;
  Queue outer = NewQueue();
  Queue inner = NewQueue();
  ASSERT_OK(Push(inner, Pattern(100'000)));
  const std::array handles = {inner.handle()};
  ASSERT_OK(outer.Push({.parts = {}, .handles = handles}, Wait::Try()));
  segment().refs().Release(inner.handle(), me());
  segment().refs().Release(outer.handle(), me());
  EXPECT_EQ(segment().Usage().objects, before);
}

TEST_F(QueueTest, CarriedHandleThatDoesNotExistIsRefused) {
  Queue queue = NewQueue();
  const Handle buffer = NewMemory();
  const std::array handles = {buffer, Handle(ObjectKind::kMemory, 7, 4000)};
  EXPECT_TRUE(absl::IsNotFound(queue.Push({.parts = {}, .handles = handles}, Wait::Try())));
  EXPECT_TRUE(queue.empty());
  segment().refs().Release(buffer, me());
  EXPECT_TRUE(absl::IsNotFound(segment().objects().Block(buffer).status())) << "its transit was taken back";
}

TEST_F(QueueTest, RecountFindsEverythingThatQueuesCarry) {
  Queue queue = NewQueue();
  for (int i = 0; i < 50; ++i) {
    const Handle buffer = NewMemory();
    const std::array handles = {buffer};
    const std::string text = Pattern(i * 1000);
    const std::array parts = {Bytes(text)};
    ASSERT_OK(queue.Push({.parts = parts, .handles = handles}, Wait::Try()));
    segment().refs().Release(buffer, me());
  }
  const SegmentUsage before = segment().Usage();
  ASSERT_OK(segment().objects().RecountTransits(me()));
  EXPECT_EQ(segment().Usage().objects, before.objects);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(PopText(queue), Pattern(i * 1000));
  EXPECT_LE(Objects(), 2u);
}

// ---- Claims, looking ----------------------------------------------------------------------------------------------

TEST_F(QueueTest, ClaimIsMadeBeforeTheMessageIsTaken) {
  Queue queue = NewQueue();
  ASSERT_OK(Push(queue, "skipped"));
  PopText(queue);
  ASSERT_OK(queue.Push({.parts = {}, .handles = {}, .tag = 5}, Wait::Try()));
  struct Recorder : Queue::Claimer {
    explicit Recorder(Queue& queue) : queue(queue) {}
    void Claim(uint64_t position, uint64_t tag) override {
      EXPECT_EQ(position, 1u);
      EXPECT_EQ(tag, 5u);
      EXPECT_EQ(queue.popped(), position) << "not taken yet";
      ++claims;
    }
    Queue& queue;
    int claims = 0;
  } recorder(queue);
  ASSERT_OK(queue.PopClaiming(recorder, Wait::Try()).status());
  EXPECT_EQ(recorder.claims, 1);
  EXPECT_EQ(queue.popped(), 2u);
}

TEST_F(QueueTest, WaitReadableTakesNothing) {
  Queue queue = NewQueue();
  EXPECT_TRUE(absl::IsDeadlineExceeded(queue.WaitReadable(Wait::Try())));
  ASSERT_OK(Push(queue, "a"));
  EXPECT_OK(queue.WaitReadable(Wait::Forever()));
  EXPECT_EQ(PopText(queue), "a");
  queue.Close();
  EXPECT_OK(queue.WaitReadable(Wait::Forever()));
}

TEST_F(QueueTest, OneWhoLooksCanBeStoppedAndTheOthersWaitOn) {
  Queue queue = NewQueue();
  std::atomic<bool> stopped{false};
  std::thread looker([&] { EXPECT_OK(queue.WaitReadable(Wait::Forever(), stopped)); });
  std::thread taker([&] { EXPECT_EQ(PopText(queue, Wait::Forever()), "a"); });
  while (Sleepers(queue) < 2) absl::SleepFor(absl::Microseconds(50));
  stopped.store(true);
  queue.WakeConsumers();
  looker.join();
  ASSERT_OK(Push(queue, "a"));
  taker.join();
}

TEST_F(QueueTest, OneWhoLooksDoesNotSwallowTheWakeUpOfOneWhoTakes) {
  Queue queue = NewQueue();
  for (int round = 0; round < 50; ++round) {
    std::thread looker([&] { EXPECT_OK(queue.WaitReadable(Wait::Forever())); });
    std::thread taker([&] { EXPECT_EQ(PopText(queue, Wait::Forever()), "a"); });
    if (round % 2 == 0) {
      while (Sleepers(queue) < 2) absl::SleepFor(absl::Microseconds(50));
    }
    ASSERT_OK(Push(queue, "a"));
    taker.join();
    ASSERT_OK(Push(queue, "b"));
    looker.join();
    EXPECT_EQ(PopText(queue), "b");
  }
}

// ---- Interruption -----------------------------------------------------------------------------------------------------

TEST_F(QueueTest, SignalHandlerRunsAndTheWaitGoesOn) {
  Queue queue = NewQueue();
  IgnoringSignals signals;
  std::thread consumer([&] {
    CountingInterruptible counting;
    EXPECT_EQ(PopText(queue, {Deadline::Never(), &counting}), "a");
    EXPECT_GE(counting.signals, 1);
    EXPECT_EQ(counting.begun, 1);
    EXPECT_EQ(counting.ended, 1);
  });
  while (Sleepers(queue) < 1) absl::SleepFor(absl::Milliseconds(1));
  InterruptUntilSeen(consumer);
  ASSERT_OK(Push(queue, "a"));
  consumer.join();
}

TEST_F(QueueTest, InterruptionThatRaisesEndsTheWait) {
  Queue queue = NewQueue();
  IgnoringSignals signals;
  std::thread consumer([&] {
    CountingInterruptible raising(absl::CancelledError("KeyboardInterrupt"));
    EXPECT_TRUE(absl::IsCancelled(queue.Pop({Deadline::Never(), &raising}).status()));
  });
  while (Sleepers(queue) < 1) absl::SleepFor(absl::Milliseconds(1));
  InterruptUntilSeen(consumer);
  consumer.join();
  ASSERT_OK(Push(queue, "a"));
  EXPECT_EQ(PopText(queue), "a");
}

TEST_F(QueueTest, WhatSucceedsAtOnceNeverGivesUpTheInterpreter) {
  Queue queue = NewQueue();
  CountingInterruptible counting;
  ASSERT_OK(Push(queue, "a", {Deadline::Never(), &counting}));
  EXPECT_EQ(PopText(queue, {Deadline::Never(), &counting}), "a");
  EXPECT_EQ(counting.begun, 0);
}

// ---- Several processes ----------------------------------------------------------------------------------------------

TEST_F(QueueTest, MessagesPassBetweenProcesses) {
  Queue requests = NewQueue();
  Queue replies = NewQueue();
  HostId id;
  auto child = temp_.StartHost(
      [&](HostId self) {
        Queue in = *Queue::Open(segment(), self, requests.handle());
        Queue out = *Queue::Open(segment(), self, replies.handle());
        for (;;) {
          absl::StatusOr<Message> message = in.Pop(Wait::Forever());
          if (!message.ok()) break;
          ASSERT_OK(Push(out, "re: " + std::string(Text(*message)), Wait::Forever()));
        }
      },
      &id);
  for (int i = 0; i < 1000; ++i) {
    ASSERT_OK(Push(requests, Pattern(i * 50, i)));
    EXPECT_EQ(PopText(replies, Wait::Forever()), "re: " + Pattern(i * 50, i));
  }
  requests.Close();
  const auto end = child->Reap();
  EXPECT_EQ(end, Exited(0));
  temp_.Bury(id, end);
}

TEST_F(QueueTest, EndsWithItsPartners) {
  Queue queue = NewQueue();
  ASSERT_OK(queue.EndWith(me()));
  EXPECT_FALSE(queue.Partner(me())) << "none yet";
  HostId id;
  auto child = temp_.StartHost(
      [&](HostId self) {
        Queue inherited = *Queue::Open(segment(), self, queue.handle());
        ASSERT_OK(inherited.EndWith(self));
        EXPECT_EQ(inherited.Partner(self), me());
        EXPECT_TRUE(absl::IsFailedPrecondition(inherited.EndWith(self))) << "two at most";
        ASSERT_OK(Push(inherited, "last words"));
        raise(SIGKILL);
      },
      &id);
  std::thread waiting([&] {
    EXPECT_EQ(PopText(queue, Wait::Forever()), "last words");
    EXPECT_TRUE(absl::IsOutOfRange(queue.Pop(Wait::Forever()).status())) << "nobody waits for the dead";
  });
  const auto end = child->Reap();
  EXPECT_EQ(queue.Partner(me()), id);
  temp_.Bury(id, end);
  waiting.join();
  EXPECT_TRUE(absl::IsFailedPrecondition(Push(queue, "too late")));
}

TEST_F(QueueTest, WaiterFindsADeadPartnerByItself) {
  Queue queue = NewQueue();
  HostId id;
  auto child = temp_.StartHost([&](HostId self) { ASSERT_OK(Queue::Open(segment(), self, queue.handle())->EndWith(self)); },
                               &id);
  const auto end = child->Reap();
  EXPECT_TRUE(absl::IsOutOfRange(queue.Pop(Wait::Forever()).status())) << "without any recovery";
  temp_.Bury(id, end);
}

TEST_F(QueueTest, OutlivesOtherHosts) {
  Queue queue = NewQueue();
  ASSERT_OK(queue.EndWith(me()));
  EXPECT_EQ(temp_.RunHost([&](HostId) {}), Exited(0));
  EXPECT_FALSE(queue.closed());
}

TEST_F(QueueTest, ManyProducersAndConsumersLoseAndInventNothing) {
  constexpr int kThreads = 4, kMessages = 5'000;
  for (uint64_t bound : {0, 3}) {
    Queue queue = NewQueue(bound);
    std::vector<std::thread> producers, consumers;
    std::array<std::vector<uint64_t>, kThreads> seen;
    for (int p = 0; p < kThreads; ++p) {
      producers.emplace_back([&, p] {
        for (uint64_t i = 0; i < kMessages; ++i) {
          ASSERT_OK(queue.Push({.parts = {}, .handles = {}, .tag = p * 1'000'000 + i}, Wait::Forever()));
        }
      });
      consumers.emplace_back([&, p] {
        for (;;) {
          absl::StatusOr<Message> message = queue.Pop(Wait::Forever());
          if (!message.ok()) return;
          seen[p].push_back(message->tag());
        }
      });
    }
    for (std::thread& thread : producers) thread.join();
    queue.Close();
    for (std::thread& thread : consumers) thread.join();
    std::vector<uint64_t> all;
    for (const std::vector<uint64_t>& one : seen) {
      std::array<uint64_t, kThreads> last = {};
      for (uint64_t tag : one) {
        EXPECT_GE(tag % 1'000'000 + 1, last[tag / 1'000'000]) << "in order per producer";
        last[tag / 1'000'000] = tag % 1'000'000 + 1;
      }
      all.insert(all.end(), one.begin(), one.end());
    }
    std::sort(all.begin(), all.end());
    ASSERT_EQ(all.size(), static_cast<size_t>(kThreads * kMessages));
    EXPECT_EQ(std::unique(all.begin(), all.end()), all.end());
  }
}

}  // namespace
}  // namespace pyhost
