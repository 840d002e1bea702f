#include "runtime/sync/condition.h"

#include <atomic>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/sync/sync_test_util.h"

namespace pyhost {
namespace {

using ::pyhost::testing::Exited;
using ::pyhost::testing::Killed;

class ConditionTest : public SyncFixture {
 protected:
  // A thread that waits once and then counts itself.
  std::thread Waiter(Mutex& mutex, Condition& condition, std::atomic<int>& woken) {
    return std::thread([&] {
      ASSERT_OK(mutex.Acquire(Wait::Forever()));
      ASSERT_OK(condition.WaitOn(mutex, Wait::Forever()));
      EXPECT_TRUE(mutex.is_mine());
      ++woken;
      ASSERT_OK(mutex.Release());
    });
  }
  // A host that waits, and dies at `point` or, without one, by Kill().
  std::unique_ptr<testing::Child> WaitingHost(Mutex& mutex, Condition& condition, std::string_view point,
                                              HostId* id) {
    return temp_.StartHost(
        [&, point](HostId self) {
          Mutex same_mutex = As(mutex, self);
          if (!point.empty()) testing::KillAtCrashPoint(point);
          ASSERT_OK(same_mutex.Acquire(Wait::Forever()));
          ASSERT_OK(As(condition, self).WaitOn(same_mutex, Wait::Forever()));
          ASSERT_OK(same_mutex.Release());
        },
        id);
  }
};

TEST_F(ConditionTest, WaitNeedsTheMutex) {
  Mutex mutex = NewMutex();
  EXPECT_TRUE(absl::IsFailedPrecondition(NewCondition().WaitOn(mutex, Wait::Try())));
}

TEST_F(ConditionTest, NotifyWakesExactlyAsManyAsAsked) {
  Mutex mutex = NewMutex(Mutex::Type::kRecursive);
  Condition condition = NewCondition();
  EXPECT_EQ(condition.Notify(), 0u);
  std::atomic<int> woken{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 20; ++i) threads.push_back(Waiter(mutex, condition, woken));
  Until([&] { return condition.waiting() == 20; });
  EXPECT_EQ(condition.Notify(3), 3u);
  Until([&] { return woken == 3; });
  EXPECT_EQ(condition.waiting(), 17u);
  EXPECT_EQ(condition.NotifyAll(), 17u);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(woken, 20);
}

TEST_F(ConditionTest, HundredWaitersFindRoom) {
  Mutex mutex = NewMutex();
  std::atomic<int> woken{0};
  const uint32_t before = segment().Usage().objects;
  Condition condition = NewCondition();
  std::vector<std::thread> threads;
  for (int i = 0; i < 100; ++i) threads.push_back(Waiter(mutex, condition, woken));
  Until([&] { return condition.waiting() == 100; });
  ASSERT_OK(segment().objects().RecountTransits(me()));
  EXPECT_EQ(condition.NotifyAll(), 100u);
  for (std::thread& thread : threads) thread.join();
  segment().refs().Release(condition.handle(), me());
  EXPECT_EQ(segment().Usage().objects, before);
}

TEST_F(ConditionTest, MutexIsTakenBackAfterATimeOutAndToTheSameDepth) {
  Mutex mutex = NewMutex(Mutex::Type::kRecursive);
  Condition condition = NewCondition();
  for (int i = 0; i < 3; ++i) ASSERT_OK(mutex.Acquire(Wait::Try()));
  EXPECT_TRUE(absl::IsDeadlineExceeded(condition.WaitOn(mutex, For(absl::Milliseconds(20)))));
  EXPECT_EQ(mutex.count(), 3u);
  EXPECT_EQ(condition.waiting(), 0u);
}

TEST_F(ConditionTest, WaiterThatGaveUpTakesNoNotification) {
  Mutex mutex = NewMutex();
  Condition condition = NewCondition();
  std::atomic<int> woken{0};
  ASSERT_OK(mutex.Acquire(Wait::Try()));
  condition.WaitOn(mutex, For(absl::Milliseconds(5))).IgnoreError();
  ASSERT_OK(mutex.Release());
  std::thread waiter = Waiter(mutex, condition, woken);
  Until([&] { return condition.waiting() == 1; });
  EXPECT_EQ(condition.Notify(), 1u);
  waiter.join();
}

TEST_F(ConditionTest, KilledWaiterIsPassedOver) {
  Mutex mutex = NewMutex();
  Condition condition = NewCondition();
  HostId id;
  auto dying = WaitingHost(mutex, condition, "", &id);
  Until([&] { return condition.waiting() == 1; });
  std::atomic<int> woken{0};
  std::thread waiter = Waiter(mutex, condition, woken);
  Until([&] { return condition.waiting() == 2; });
  temp_.Bury(id, dying->Kill());
  EXPECT_EQ(condition.waiting(), 1u);
  EXPECT_EQ(condition.Notify(), 1u);
  waiter.join();
}

TEST_F(ConditionTest, NotificationOfAWaiterThatDiesIsPassedOn) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
  Mutex mutex = NewMutex();
  Condition condition = NewCondition();
  HostId id;
  auto dying = WaitingHost(mutex, condition, "wait-list-before-leave", &id);
  Until([&] { return condition.waiting() == 1; });
  std::atomic<int> woken{0};
  std::thread waiter = Waiter(mutex, condition, woken);
  Until([&] { return condition.waiting() == 2; });
  EXPECT_EQ(condition.Notify(), 1u);  // the oldest: the one that dies
  const auto end = dying->Reap();
  EXPECT_EQ(end, Killed(SIGKILL));
  EXPECT_EQ(woken, 0);
  temp_.Bury(id, end);
  waiter.join();
}

TEST_F(ConditionTest, NotifierThatDiesLeavesNobodyBehind) {
  Mutex mutex = NewMutex();
  Condition condition = NewCondition();
  std::atomic<int> woken{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.push_back(Waiter(mutex, condition, woken));
  Until([&] { return condition.waiting() == 3; });
  DieAt("wait-list-told", [&](HostId self) { As(condition, self).NotifyAll(); });
  Until([&] { return woken == 1; });  // told by the dead one; the others were not
  EXPECT_EQ(condition.waiting(), 2u);
  EXPECT_EQ(condition.NotifyAll(), 2u);
  for (std::thread& thread : threads) thread.join();
}

TEST_F(ConditionTest, DeathWhileJoiningOrGrowingLeavesAUsableList) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
  Mutex mutex = NewMutex();
  for (std::string_view point : {"wait-list-joined", "wait-list-grown", "condition-heard"}) {
    SCOPED_TRACE(point);
    Condition condition = NewCondition();
    std::atomic<int> woken{0};
    std::vector<std::thread> threads;
    const size_t others = point == "wait-list-grown" ? WaitListState::kInPlace : 1;
    for (size_t i = 0; i < others; ++i) threads.push_back(Waiter(mutex, condition, woken));
    Until([&] { return condition.waiting() == others; });
    HostId id;
    auto dying = WaitingHost(mutex, condition, point, &id);
    if (point == "condition-heard") {
      Until([&] { return condition.waiting() == others + 1; });
      condition.NotifyAll();
    }
    const auto end = dying->Reap();
    EXPECT_EQ(end, Killed(SIGKILL));
    temp_.Bury(id, end);
    mutex.Acquire(Wait::Try()).IgnoreError();  // the dead one may have had it: hear of it here
    if (mutex.is_mine()) {
      ASSERT_OK(mutex.Release());
    }
    condition.NotifyAll();
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(woken, static_cast<int>(others));
  }
}

TEST_F(ConditionTest, OwnerThatDiesWhileOthersWaitIsReportedWithTheMutexHeld) {
  Mutex mutex = NewMutex();
  Condition condition = NewCondition();
  std::thread waiter([&] {
    ASSERT_OK(mutex.Acquire(Wait::Forever()));
    EXPECT_TRUE(absl::IsAborted(condition.WaitOn(mutex, Wait::Forever())));
    EXPECT_TRUE(mutex.is_mine());
    ASSERT_OK(mutex.Release());
  });
  Until([&] { return condition.waiting() == 1; });
  DieAt("mutex-before-release", [&](HostId self) {
    Mutex same = As(mutex, self);
    ASSERT_OK(same.Acquire(Wait::Forever()));
    As(condition, self).Notify();
    same.Release().IgnoreError();
  });
  waiter.join();
}

TEST_F(ConditionTest, HandsABallBetweenProcesses) {
  Mutex mutex = NewMutex(Mutex::Type::kRecursive);
  Condition condition = NewCondition();
  Semaphore ball = NewSemaphore(0);
  HostId id;
  const auto play = [&](HostId self, bool odd) {
    Mutex m = As(mutex, self);
    Condition c = As(condition, self);
    Semaphore b = As(ball, self);
    ASSERT_OK(m.Acquire(Wait::Forever()));
    while (b.value() < 2'000) {
      if ((b.value() % 2 == 1) == odd) {
        ASSERT_OK(b.Release());
        c.NotifyAll();
      } else {
        ASSERT_OK(c.WaitOn(m, Wait::Forever()));
      }
    }
    c.NotifyAll();
    ASSERT_OK(m.Release());
  };
  auto child = temp_.StartHost([&](HostId self) { play(self, true); }, &id);
  play(me(), false);
  const auto end = child->Reap();
  EXPECT_EQ(end, Exited(0));
  temp_.Bury(id, end);
}

}  // namespace
}  // namespace pyhost
