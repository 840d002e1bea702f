// What survives when a process dies in the middle of a queue operation: one test a transition, each with a child
// that is killed at a crash point.

#include <signal.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <optional>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/queue/queue_test_util.h"
#include "runtime/testing/temp_segment.h"

namespace pyhost {
namespace {

using ::pyhost::testing::Exited;
using ::pyhost::testing::Killed;
using ::pyhost::testing::KillAtCrashPoint;

class QueueCrashTest : public QueueFixture {
 protected:
  void SetUp() override {
    if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
    baseline_ = segment().Usage();
    queue_ = NewQueue();
  }

  // A host that dies at `point`, and is recovered.
  template <typename Body>
  void DieAt(std::string_view point, Body body, int nth = 1) {
    const auto end = temp_.RunHost([&](HostId self) {
      Queue queue = *Queue::Open(segment(), self, queue_->handle());
      KillAtCrashPoint(point, nth);
      body(queue, self);
    });
    ASSERT_EQ(end, Killed(SIGKILL)) << "never came to " << point;
  }
  // The same, but nobody recovers it before the next user comes along: that one takes the lock over.
  template <typename Body>
  HostId DieUnnoticedAt(std::string_view point, Body body) {
    HostId id;
    auto child = temp_.StartHost(
        [&](HostId self) {
          Queue queue = *Queue::Open(segment(), self, queue_->handle());
          KillAtCrashPoint(point);
          body(queue, self);
        },
        &id);
    EXPECT_EQ(child->Reap(), Killed(SIGKILL));
    return id;
  }
  // Works as if nothing had happened, and nothing leaked.
  void ExpectIntact() {
    for (int i = 0; i < 200; ++i) ASSERT_OK(Push(*queue_, Pattern(i * 10, i)));
    for (int i = 0; i < 200; ++i) ASSERT_EQ(PopText(*queue_), Pattern(i * 10, i));
    EXPECT_TRUE(queue_->empty());
    segment().refs().Release(queue_->handle(), me());
    EXPECT_EQ(segment().Usage().objects, baseline_.objects);
    EXPECT_EQ(segment().Usage().used_bytes, baseline_.used_bytes);
  }
  // A message with a payload object and a buffer of its own.
  static absl::Status PushLoaded(Segment& segment, Queue& queue, HostId self) {
    const Handle buffer = *segment.objects().Create(ObjectKind::kMemory, 5000, self);
    segment.refs().Adopt(buffer, self);
    const std::array handles = {buffer};
    const std::string text = Pattern(50'000);
    const std::array parts = {Bytes(text)};
    absl::Status pushed = queue.Push({.parts = parts, .handles = handles}, Wait::Try());
    segment.refs().Release(buffer, self);
    return pushed;
  }

  std::optional<Queue> queue_;
  SegmentUsage baseline_;
};

TEST_F(QueueCrashTest, PushThatDidNotCommitDidNotHappen) {
  for (std::string_view point : {"queue-push-payload-created", "queue-push-locked", "queue-push-transit-counted",
                                 "queue-push-half-written", "queue-push-before-commit"}) {
    SCOPED_TRACE(point);
    DieAt(point, [&](Queue& queue, HostId self) { ASSERT_OK(PushLoaded(segment(), queue, self)); });
    EXPECT_TRUE(queue_->empty());
  }
  ExpectIntact();
}

TEST_F(QueueCrashTest, PushThatCommittedHappened) {
  DieAt("queue-push-committed",
        [&](Queue& queue, HostId self) { ASSERT_OK(PushLoaded(segment(), queue, self)); });
  EXPECT_EQ(queue_->depth(), 1u);
  EXPECT_EQ(PopText(*queue_), Pattern(50'000));
  ExpectIntact();
}

TEST_F(QueueCrashTest, HalfPushedBatchIsAllOrNothing) {
  const std::vector<std::string> texts(10, Pattern(100));
  DieAt("queue-push-half-written", [&](Queue& queue, HostId) { PushAll(queue, texts, Wait::Try()); }, 7);
  EXPECT_TRUE(queue_->empty());
  DieAt("queue-push-committed", [&](Queue& queue, HostId) { PushAll(queue, texts, Wait::Try()); });
  EXPECT_EQ(queue_->depth(), 10u);
  for (const std::string& text : texts) EXPECT_EQ(PopText(*queue_), text);
  ExpectIntact();
}

TEST_F(QueueCrashTest, NewChunkOfADeadProducerIsFreed) {
  for (std::string_view point : {"queue-chunk-created", "queue-chunk-counted", "queue-chunk-before-link",
                                 "queue-chunk-linked"}) {
    SCOPED_TRACE(point);
    uint64_t pushed = 0;
    for (int i = 0; i < 3; ++i) ASSERT_OK(Push(*queue_, Pattern(1000, pushed++)));
    DieAt(point, [&](Queue& queue, HostId) {
      for (int i = 0; i < 10'000; ++i) ASSERT_OK(Push(queue, Pattern(1000, 3 + i)));
    });
    ASSERT_GE(queue_->depth(), 3u);
    for (uint64_t i = 0; !queue_->empty(); ++i) ASSERT_EQ(PopText(*queue_), Pattern(1000, i));
  }
  ExpectIntact();
}

TEST_F(QueueCrashTest, SpareOfADeadProducerIsFreed) {
  const std::string text = Pattern(16'000);
  for (int i = 0; i < 500; ++i) ASSERT_OK(Push(*queue_, text));
  for (int i = 0; i < 400; ++i) ASSERT_EQ(PopText(*queue_), text);
  ASSERT_NE(StateOf(*queue_)->spare.load(), 0u);
  DieAt("queue-spare-taken", [&](Queue& queue, HostId) {
    for (int i = 0; i < 500; ++i) ASSERT_OK(Push(queue, text));
  });
  while (!queue_->empty()) ASSERT_EQ(PopText(*queue_), text);
  ExpectIntact();
}

TEST_F(QueueCrashTest, PopThatDidNotCommitLeavesTheMessage) {
  for (std::string_view point : {"queue-pop-locked", "queue-pop-taken", "queue-pop-before-commit"}) {
    SCOPED_TRACE(point);
    ASSERT_OK(PushLoaded(segment(), *queue_, me()));
    DieAt(point, [&](Queue& queue, HostId) { queue.Pop(Wait::Try()).IgnoreError(); });
    ASSERT_EQ(queue_->depth(), 1u);
    EXPECT_EQ(PopText(*queue_), Pattern(50'000));
  }
  ExpectIntact();
}

TEST_F(QueueCrashTest, PopThatCommittedTookTheMessageWithIt) {
  for (std::string_view point : {"queue-pop-committed", "queue-pop-before-transit-end"}) {
    SCOPED_TRACE(point);
    ASSERT_OK(PushLoaded(segment(), *queue_, me()));
    DieAt(point, [&](Queue& queue, HostId) { queue.Pop(Wait::Try()).IgnoreError(); });
    EXPECT_TRUE(queue_->empty());
  }
  ExpectIntact();
}

TEST_F(QueueCrashTest, MessageInADeadHostsHandsIsFreed) {
  ASSERT_OK(PushLoaded(segment(), *queue_, me()));
  DieAt("queue-closed", [&](Queue& queue, HostId) {
    absl::StatusOr<Message> message = queue.Pop(Wait::Try());
    ASSERT_OK(message.status());
    queue.Close();
  });
  EXPECT_TRUE(queue_->closed());
  segment().refs().Release(queue_->handle(), me());
  EXPECT_EQ(segment().Usage().objects, baseline_.objects);
  EXPECT_EQ(segment().Usage().used_bytes, baseline_.used_bytes);
}

TEST_F(QueueCrashTest, WhatADestroyedQueueCarriedIsLetGoOnce) {
  for (std::string_view point : {"queue-destroy-noted", "object-destroyed-before-freed"}) {
    SCOPED_TRACE(point);
    const Handle shared = *segment().objects().Create(ObjectKind::kMemory, 5000, me());
    const std::array handles = {shared};
    ASSERT_OK(queue_->Push({.parts = {}, .handles = handles}, Wait::Try()));
    DieAt(point, [&](Queue&, HostId self) {
      Queue own = *Queue::Create(segment(), self);
      ASSERT_OK(own.Push({.parts = {}, .handles = handles}, Wait::Try()));
      segment().objects().Drop(own.handle(), self, self);
    });
    segment().objects().Drop(shared, me(), me());
    EXPECT_OK(segment().objects().State(shared).status()) << "the other queue carries it";
    EXPECT_OK(queue_->Pop(Wait::Try()).status());
    EXPECT_FALSE(segment().objects().State(shared).ok()) << "nobody carries it any more";
  }
  ExpectIntact();
}

TEST_F(QueueCrashTest, CloseThatADeadOneBeganIsFinished) {
  DieAt("queue-half-closed", [&](Queue& queue, HostId) { queue.Close(); });
  EXPECT_TRUE(queue_->closed());
  EXPECT_TRUE(absl::IsFailedPrecondition(Push(*queue_, "late")));
  EXPECT_TRUE(absl::IsOutOfRange(queue_->Pop(Wait::Forever()).status()));
}

TEST_F(QueueCrashTest, ChunkThatADeadConsumerDidNotFreeIsFreed) {
  for (std::string_view point : {"queue-pop-before-chunk-freed", "queue-spare-exchanged"}) {
    SCOPED_TRACE(point);
    const std::string text = Pattern(16'000);
    for (int i = 0; i < 200; ++i) ASSERT_OK(Push(*queue_, text));
    DieAt(point, [&](Queue& queue, HostId) {
      for (int i = 0; i < 200; ++i) queue.Pop(Wait::Try()).IgnoreError();
    });
    while (!queue_->empty()) ASSERT_EQ(PopText(*queue_), text);
  }
  ExpectIntact();
}

TEST_F(QueueCrashTest, NextProducerTakesTheLockOverFromTheDead) {
  const HostId dead = DieUnnoticedAt("queue-chunk-linked", [&](Queue& queue, HostId) {
    for (int i = 0; i < 10'000; ++i) ASSERT_OK(Push(queue, Pattern(1000, i)));
  });
  const uint64_t left = queue_->depth();
  ASSERT_OK(Push(*queue_, "after"));
  for (uint64_t i = 0; i < left; ++i) ASSERT_EQ(PopText(*queue_), Pattern(1000, i));
  EXPECT_EQ(PopText(*queue_), "after");
  temp_.Bury(dead, Killed(SIGKILL));
  ExpectIntact();
}

TEST_F(QueueCrashTest, NextConsumerTakesTheLockOverFromTheDead) {
  ASSERT_OK(PushLoaded(segment(), *queue_, me()));
  ASSERT_OK(Push(*queue_, "second"));
  const HostId dead = DieUnnoticedAt(
      "queue-pop-committed", [&](Queue& queue, HostId) { queue.Pop(Wait::Try()).IgnoreError(); });
  EXPECT_EQ(PopText(*queue_), "second");
  temp_.Bury(dead, Killed(SIGKILL));
  ExpectIntact();
}

TEST_F(QueueCrashTest, ClaimOfADeadHostCanBeJudged) {
  ASSERT_OK(queue_->Push({.parts = {}, .handles = {}, .tag = 9}, Wait::Try()));
  // The claim lies in memory that survives the claimer.
  const Handle note = NewMemory();
  auto* claimed = reinterpret_cast<std::atomic<uint64_t>*>(segment().objects().Block(note)->data());
  struct Noter : Queue::Claimer {
    explicit Noter(std::atomic<uint64_t>* to) : to(to) {}
    void Claim(uint64_t position, uint64_t) override { to->store(position + 1); }
    std::atomic<uint64_t>* to;
  };
  const auto claim = [&](Queue& queue, HostId) {
    Noter noter(claimed);
    queue.PopClaiming(noter, Wait::Try()).IgnoreError();
  };
  claimed->store(0);
  DieAt("queue-pop-before-commit", claim);
  EXPECT_EQ(claimed->load(), 1u);
  EXPECT_EQ(queue_->popped(), 0u) << "the claim did not happen";
  DieAt("queue-pop-committed", claim);
  EXPECT_EQ(claimed->load(), 1u);
  EXPECT_EQ(queue_->popped(), 1u) << "it did";
  segment().refs().Release(note, me());
  ExpectIntact();
}

// ---- Waiting ------------------------------------------------------------------------------------------------------

TEST_F(QueueCrashTest, WakeUpOfADeadProducerIsMadeGood) {
  HostId id;
  auto consumer = temp_.StartHost(
      [&](HostId self) {
        Queue queue = *Queue::Open(segment(), self, queue_->handle());
        EXPECT_EQ(PopText(queue, Wait::Forever()), "a");
      },
      &id);
  while (Sleepers(*queue_) == 0) absl::SleepFor(absl::Milliseconds(1));
  DieAt("queue-push-committed", [&](Queue& queue, HostId) { ASSERT_OK(Push(queue, "a")); });
  const auto end = consumer->Reap();
  EXPECT_EQ(end, Exited(0));
  temp_.Bury(id, end);
  ExpectIntact();
}

TEST_F(QueueCrashTest, DeadConsumerDoesNotSwallowTheWakeUp) {
  for (int round = 0; round < 20; ++round) {
    HostId dying_id, living_id;
    auto dying = temp_.StartHost(
        [&](HostId self) {
          Queue queue = *Queue::Open(segment(), self, queue_->handle());
          KillAtCrashPoint("queue-pop-taken");
          PopText(queue, Wait::Forever());
        },
        &dying_id);
    while (Sleepers(*queue_) < 1) absl::SleepFor(absl::Milliseconds(1));
    auto living = temp_.StartHost(
        [&](HostId self) {
          Queue queue = *Queue::Open(segment(), self, queue_->handle());
          EXPECT_EQ(PopText(queue, Wait::Forever()), "a");
        },
        &living_id);
    while (Sleepers(*queue_) < 2) absl::SleepFor(absl::Milliseconds(1));
    ASSERT_OK(Push(*queue_, "a"));
    // Either of them may have been woken.  If it was the one that dies, the message is the other's.
    if (round % 2 == 0) absl::SleepFor(absl::Milliseconds(5));
    dying->Signal(SIGKILL);
    temp_.Bury(dying_id, dying->Reap());
    const auto end = living->Reap();
    ASSERT_EQ(end, Exited(0));
    temp_.Bury(living_id, end);
  }
  ExpectIntact();
}

TEST_F(QueueCrashTest, StoppedConsumerIsNotDead) {
  ASSERT_OK(Push(*queue_, "a"));
  HostId id;
  auto holder = temp_.StartHost(
      [&](HostId self) {
        Queue queue = *Queue::Open(segment(), self, queue_->handle());
        struct Stopper : Queue::Claimer {
          void Claim(uint64_t, uint64_t) override { raise(SIGSTOP); }
        } stopper;
        ASSERT_OK(queue.PopClaiming(stopper, Wait::Try()).status());
      },
      &id);
  int status;
  ASSERT_EQ(waitpid(holder->pid(), &status, WUNTRACED), holder->pid());
  ASSERT_TRUE(WIFSTOPPED(status));
  std::thread resume([&] {
    absl::SleepFor(absl::Milliseconds(200));  // several patiences: the lock must not be taken over
    EXPECT_EQ(queue_->popped(), 0u);
    holder->Signal(SIGCONT);
  });
  EXPECT_TRUE(absl::IsDeadlineExceeded(queue_->Pop(Wait::Try()).status())) << "waits for the lock, then finds nothing";
  resume.join();
  const auto end = holder->Reap();
  EXPECT_EQ(end, Exited(0));
  temp_.Bury(id, end);
  ExpectIntact();
}

}  // namespace
}  // namespace pyhost
