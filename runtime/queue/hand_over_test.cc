// What is handed over beside a descriptor: to whom, in which order, and what is left when somebody dies.

#include "runtime/queue/hand_over.h"

#include <signal.h>

#include <atomic>
#include <limits>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/queue/queue_test_util.h"
#include "runtime/testing/temp_segment.h"

namespace pyhost {
namespace {

using ::pyhost::testing::Killed;
using ::pyhost::testing::KillAtCrashPoint;

bool Empty() { return true; }
bool NotEmpty() { return false; }

class HandOverTest : public ::testing::Test {
 protected:
  HandOverTest() {
    const Handle handle = *temp_.objects().Create(ObjectKind::kMemory, sizeof(HandOverLane), me());
    temp_->refs().Adopt(handle, me());
    lane_ = new (temp_.objects().Block(handle)->data()) HandOverLane();
  }
  HostId me() const { return temp_.me(); }
  HandOver View(HostId host) { return HandOver(lane_, temp_.hosts(), host); }
  HandOver Mine() { return View(me()); }
  static std::string Taken(HandOver& reader) {
    std::string text(HandOverLane::kMaxBytes, '\0');
    const absl::StatusOr<size_t> size = reader.Take(std::as_writable_bytes(std::span(text)));
    return size.ok() ? text.substr(0, *size) : "error: " + size.status().ToString();
  }
  // A host that dies at `point`; what it held stays as it is, but everybody knows of its death.
  template <typename Body>
  void DieAt(std::string_view point, Body body) {
    const auto end = temp_.RunHost([&](HostId self) {
      KillAtCrashPoint(point);
      body(self);
    });
    ASSERT_EQ(end, Killed(SIGKILL)) << "never came to " << point;
  }
  // An announcement that does not grow old, however long the test is kept from going on.
  bool Announce(HandOver& reader) {
    if (!reader.Announce()) return false;
    lane_->announced_at.store(std::numeric_limits<int64_t>::max());
    return true;
  }
  bool SomebodyWaits() const { return (lane_->word.load() & 3) == 1; }
  void ExpectWorks() {
    HandOver reader = Mine();
    ASSERT_TRUE(Announce(reader));
    ASSERT_TRUE(Mine().Give(Bytes("works"), Empty));
    ASSERT_FALSE(reader.Withdraw());
    EXPECT_EQ(Taken(reader), "works");
    EXPECT_FALSE(Mine().IsLeftBehind());
  }

  testing::TempSegment temp_;
  HandOverLane* lane_;
};

TEST_F(HandOverTest, IsGivenToAReaderThatWaits) {
  HandOver reader = Mine();
  ASSERT_TRUE(Announce(reader));
  EXPECT_FALSE(reader.Given());
  EXPECT_TRUE(Mine().Give(Bytes("for you"), Empty));
  EXPECT_TRUE(reader.Given());
  EXPECT_FALSE(reader.Withdraw());
  EXPECT_EQ(Taken(reader), "for you");
  EXPECT_FALSE(reader.Given());
}

TEST_F(HandOverTest, GoesByDescriptorWithoutAReader) {
  EXPECT_FALSE(Mine().Give(Bytes("nobody"), Empty));
  HandOver reader = Mine();
  ASSERT_TRUE(Announce(reader));
  EXPECT_TRUE(reader.Withdraw());
  EXPECT_FALSE(Mine().Give(Bytes("gone"), Empty));
  // One message a wait.
  ASSERT_TRUE(Announce(reader));
  ASSERT_TRUE(Mine().Give(Bytes("first"), Empty));
  EXPECT_FALSE(Mine().Give(Bytes("second"), Empty));
  EXPECT_EQ(Taken(reader), "first");
  EXPECT_FALSE(Mine().Give(Bytes("third"), Empty));
}

TEST_F(HandOverTest, GoesByDescriptorBehindWhatIsInThereAndWhenLarge) {
  HandOver reader = Mine();
  ASSERT_TRUE(Announce(reader));
  EXPECT_FALSE(Mine().Give(Bytes("younger"), NotEmpty));
  EXPECT_FALSE(Mine().Give(Bytes(std::string(HandOverLane::kMaxBytes + 1, 'x')), Empty));
  EXPECT_TRUE(Mine().Give(Bytes(std::string(HandOverLane::kMaxBytes, 'x')), Empty));
  EXPECT_EQ(Taken(reader), std::string(HandOverLane::kMaxBytes, 'x'));
  ASSERT_TRUE(Announce(reader));
  EXPECT_TRUE(Mine().Give({}, Empty));
  EXPECT_EQ(Taken(reader), "");
}

TEST_F(HandOverTest, AReaderThatTurnsToTheDescriptorMeanwhileIsNotGiven) {
  HandOver reader = Mine();
  ASSERT_TRUE(Announce(reader));
  // Between the giver's look at the descriptor and its last step the reader has read an older message, and waits again.
  EXPECT_FALSE(Mine().Give(Bytes("stale"), [&] {
    EXPECT_TRUE(reader.Withdraw());
    EXPECT_TRUE(Announce(reader));
    return true;
  }));
  EXPECT_FALSE(reader.Given());
  EXPECT_TRUE(reader.Withdraw());
}

TEST_F(HandOverTest, OneReaderAtATime) {
  HandOver first = Mine(), second = Mine();
  ASSERT_TRUE(Announce(first));
  EXPECT_FALSE(Announce(second));
  ASSERT_TRUE(Mine().Give(Bytes("first's"), Empty));
  EXPECT_FALSE(Announce(second));
  EXPECT_FALSE(second.Given());
  EXPECT_FALSE(Mine().IsLeftBehind()) << "its reader lives";
  EXPECT_EQ(Taken(first), "first's");
  EXPECT_TRUE(Announce(second));
}

TEST_F(HandOverTest, DamagedSizeIsAnError) {
  HandOver reader = Mine();
  ASSERT_TRUE(Announce(reader));
  ASSERT_TRUE(Mine().Give(Bytes("x"), Empty));
  lane_->size = 1 << 30;
  EXPECT_THAT(Taken(reader), ::testing::HasSubstr("DATA_LOSS"));
  ExpectWorks();
}

TEST_F(HandOverTest, AReaderThatDiedWaitingIsPassedOver) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
  DieAt("hand-over-announced", [&](HostId self) { View(self).Announce(); });
  EXPECT_FALSE(Mine().Give(Bytes("nobody"), Empty));
  EXPECT_FALSE(Mine().IsLeftBehind());
  ExpectWorks();
}

TEST_F(HandOverTest, WhatADeadReaderWasGivenIsTheNextReaders) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
  DieAt("hand-over-before-taken", [&](HostId self) {
    HandOver reader = View(self);
    Announce(reader);
    View(self).Give(Bytes("inherited"), Empty);
    Taken(reader);
  });
  EXPECT_TRUE(Mine().IsLeftBehind());
  EXPECT_FALSE(Mine().Give(Bytes("younger"), Empty));
  HandOver reader = Mine();
  ASSERT_TRUE(Announce(reader));
  EXPECT_TRUE(reader.Given());
  EXPECT_FALSE(reader.Withdraw());
  EXPECT_EQ(Taken(reader), "inherited");
  ExpectWorks();
}

TEST_F(HandOverTest, AGiverThatDiedHasGivenOrHasNot) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
  HandOver reader = Mine();
  ASSERT_TRUE(Announce(reader));
  DieAt("hand-over-before-given", [&](HostId self) { View(self).Give(Bytes("never"), Empty); });
  EXPECT_FALSE(reader.Given());
  EXPECT_TRUE(Mine().Give(Bytes("the next one's"), Empty)) << "its lock is taken over";
  EXPECT_EQ(Taken(reader), "the next one's");

  ASSERT_TRUE(Announce(reader));
  DieAt("hand-over-before-unlock", [&](HostId self) { View(self).Give(Bytes("given"), Empty); });
  EXPECT_TRUE(reader.Given());
  EXPECT_EQ(Taken(reader), "given");
  ExpectWorks();
}

TEST_F(HandOverTest, AnOldAnnouncementIsPassedOver) {
  HandOver reader = Mine();
  ASSERT_TRUE(reader.Announce());
  lane_->announced_at.fetch_sub(1'000'000);
  EXPECT_FALSE(Mine().Give(Bytes("to one that may be dead"), Empty));
  EXPECT_TRUE(reader.Withdraw());
  ExpectWorks();
}

// The descriptor is a queue of numbers here: two givers, each with its own series, and two readers.
TEST_F(HandOverTest, EveryMessageComesOnceAndInOrderByEitherWay) {
  constexpr uint32_t kMessages = 20'000;
  std::mutex mutex;
  std::vector<uint32_t> descriptor;
  std::atomic<uint32_t> unread{0}, handed{0};
  std::mutex giving, reading;
  std::vector<uint32_t> received;

  auto give = [&](uint32_t number) {
    // Now and then the reader is there first.
    while (number % 3 == 0 && !SomebodyWaits()) std::this_thread::yield();
    const std::span<const std::byte> bytes = std::as_bytes(std::span(&number, 1));
    if (Mine().Give(bytes, [&] { return unread.load() == 0; })) {
      ++handed;
      return;
    }
    std::lock_guard lock(mutex);
    descriptor.push_back(number);
    ++unread;
  };
  auto try_read = [&](uint32_t* number) {
    std::lock_guard lock(mutex);
    if (descriptor.empty()) return false;
    *number = descriptor.front();
    descriptor.erase(descriptor.begin());
    --unread;
    return true;
  };
  auto receive = [&](uint32_t* number) {
    while (true) {
      HandOver reader = Mine();
      if (Announce(reader)) {
        for (int i = 0; i < 1000 && !reader.Given() && unread.load() == 0; ++i) std::this_thread::yield();
        if (!reader.Withdraw()) {
          ASSERT_EQ(*reader.Take(std::as_writable_bytes(std::span(number, 1))), sizeof(*number));
          return;
        }
      }
      if (try_read(number)) return;
    }
  };

  uint32_t next = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      for (bool more = true; more;) {
        std::lock_guard lock(giving);  // as programs have to, whose writers share an end
        if ((more = next < kMessages)) give(next++);
      }
    });
    threads.emplace_back([&] {
      for (bool more = true; more;) {
        std::lock_guard lock(reading);
        if ((more = received.size() < kMessages)) {
          uint32_t number = 0;
          receive(&number);
          received.push_back(number);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (uint32_t i = 0; i < kMessages; ++i) ASSERT_EQ(received[i], i);
  EXPECT_GT(handed.load(), 0u);
}

}  // namespace
}  // namespace pyhost
