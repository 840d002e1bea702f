#include "runtime/sync/mutex.h"

#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/sync/sync_test_util.h"

namespace pyhost {
namespace {

using ::pyhost::testing::Exited;
using ::pyhost::testing::Killed;
using ::testing::HasSubstr;

class MutexTest : public SyncFixture {
 protected:
  uint32_t Sleepers(const Mutex& mutex) { return StateOf<MutexState>(mutex)->released.sleepers(); }
};

TEST_F(MutexTest, OneHolderAtATime) {
  Mutex mutex = NewMutex();
  EXPECT_FALSE(mutex.locked());
  ASSERT_OK(mutex.Acquire(Wait::Try()));
  EXPECT_TRUE(mutex.locked());
  EXPECT_TRUE(mutex.is_mine());
  EXPECT_EQ(mutex.count(), 1u);
  EXPECT_EQ(mutex.owner(), me());
  EXPECT_TRUE(absl::IsDeadlineExceeded(mutex.Acquire(Wait::Try())));
  EXPECT_TRUE(absl::IsDeadlineExceeded(mutex.Acquire(For(absl::Milliseconds(20)))));
  ASSERT_OK(mutex.Release());
  EXPECT_FALSE(mutex.locked());
}

TEST_F(MutexTest, ReleaseOfAFreeMutexIsAnError) {
  Mutex mutex = NewMutex();
  const absl::Status status = mutex.Release();
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_EQ(status.message(), "semaphore or lock released too many times");
}

TEST_F(MutexTest, PlainMutexMayBeReleasedByAnyThread) {
  Mutex mutex = NewMutex();
  ASSERT_OK(mutex.Acquire(Wait::Try()));
  std::thread([&] {
    EXPECT_FALSE(mutex.is_mine());
    EXPECT_EQ(mutex.count(), 1u);
    EXPECT_OK(mutex.Release());
  }).join();
  EXPECT_FALSE(mutex.locked());
}

TEST_F(MutexTest, PlainMutexMayBeReleasedByAnotherHost) {
  Mutex mutex = NewMutex();
  ASSERT_OK(mutex.Acquire(Wait::Try()));
  EXPECT_EQ(temp_.RunHost([&](HostId self) {
    EXPECT_EQ(As(mutex, self).count(), 0u);
    EXPECT_OK(As(mutex, self).Release());
  }),
            Exited(0));
  ASSERT_OK(mutex.Acquire(Wait::Try()));
}

TEST_F(MutexTest, RecursiveMutexCountsItsOwnersAcquires) {
  Mutex mutex = NewMutex(Mutex::Type::kRecursive);
  for (uint32_t depth = 1; depth <= 3; ++depth) {
    ASSERT_OK(mutex.Acquire(Wait::Forever()));
    EXPECT_EQ(mutex.count(), depth);
  }
  for (uint32_t depth = 3; depth >= 1; --depth) {
    EXPECT_TRUE(mutex.is_mine());
    ASSERT_OK(mutex.Release());
  }
  EXPECT_FALSE(mutex.locked());
}

TEST_F(MutexTest, RecursiveMutexIsReleasedByItsOwnerAlone) {
  Mutex mutex = NewMutex(Mutex::Type::kRecursive);
  const absl::Status unlocked = mutex.Release();
  EXPECT_TRUE(absl::IsFailedPrecondition(unlocked));
  EXPECT_EQ(unlocked.message(), "attempt to release recursive lock not owned by thread");
  ASSERT_OK(mutex.Acquire(Wait::Try()));
  std::thread([&] {
    EXPECT_TRUE(absl::IsFailedPrecondition(mutex.Release()));
    EXPECT_TRUE(absl::IsDeadlineExceeded(mutex.Acquire(Wait::Try())));
  }).join();
  EXPECT_TRUE(mutex.is_mine());
}

TEST_F(MutexTest, NewThreadIsNeverTakenForAnEndedOne) {
  Mutex mutex = NewMutex(Mutex::Type::kRecursive);
  std::thread([&] { ASSERT_OK(mutex.Acquire(Wait::Try())); }).join();
  for (int i = 0; i < 10; ++i) {
    std::thread([&] { EXPECT_FALSE(mutex.is_mine()); }).join();
  }
}

TEST_F(MutexTest, ReleaseAllAndAcquireAllKeepTheDepth) {
  Mutex mutex = NewMutex(Mutex::Type::kRecursive);
  EXPECT_TRUE(absl::IsFailedPrecondition(mutex.ReleaseAll().status()));
  for (int i = 0; i < 3; ++i) ASSERT_OK(mutex.Acquire(Wait::Try()));
  EXPECT_EQ(*mutex.ReleaseAll(), 3u);
  EXPECT_FALSE(mutex.locked());
  ASSERT_OK(mutex.AcquireAll(3, Wait::Forever()));
  EXPECT_EQ(mutex.count(), 3u);
}

TEST_F(MutexTest, ExcludesThreadsAndLosesNoWakeUp) {
  for (Mutex::Type type : {Mutex::Type::kPlain, Mutex::Type::kRecursive}) {
    Mutex mutex = NewMutex(type);
    int64_t counter = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 10'000; ++i) {
          ASSERT_OK(mutex.Acquire(Wait::Forever()));
          ++counter;
          ASSERT_OK(mutex.Release());
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(counter, 40'000);
  }
}

TEST_F(MutexTest, WaiterThatGivesUpLeavesTheOthersTheirWakeUp) {
  Mutex mutex = NewMutex();
  ASSERT_OK(mutex.Acquire(Wait::Try()));
  std::thread patient([&] {
    ASSERT_OK(mutex.Acquire(Wait::Forever()));
    ASSERT_OK(mutex.Release());
  });
  std::thread hasty([&] { mutex.Acquire(For(absl::Milliseconds(30))).IgnoreError(); });
  Until([&] { return Sleepers(mutex) >= 1; });
  hasty.join();
  ASSERT_OK(mutex.Release());
  patient.join();
}

// ---- Death of the owner ------------------------------------------------------------------------------------------

TEST_F(MutexTest, KilledOwnerIsReportedOnceThenTheMutexIsFree) {
  for (Mutex::Type type : {Mutex::Type::kPlain, Mutex::Type::kRecursive}) {
    Mutex mutex = NewMutex(type);
    DieAt("mutex-before-release", [&](HostId self) {
      Mutex same = As(mutex, self);
      ASSERT_OK(same.Acquire(Wait::Try()));
      same.Release().IgnoreError();
    });
    EXPECT_TRUE(mutex.locked());
    EXPECT_FALSE(mutex.owner());
    const absl::Status died = mutex.Acquire(Wait::Forever());
    EXPECT_TRUE(absl::IsAborted(died)) << died;
    EXPECT_THAT(died.message(), HasSubstr("killed"));
    EXPECT_FALSE(mutex.is_mine()) << "not holding it";
    EXPECT_FALSE(mutex.locked());
    ASSERT_OK(mutex.Acquire(Wait::Try()));
    EXPECT_EQ(mutex.count(), 1u);
    ASSERT_OK(mutex.Release());
  }
}

TEST_F(MutexTest, MutexOfAKilledOwnerMayStillBeReleasedByOthers) {
  Mutex mutex = NewMutex();
  DieAt("mutex-acquired", [&](HostId self) { As(mutex, self).Acquire(Wait::Try()).IgnoreError(); });
  ASSERT_OK(mutex.Release());
  ASSERT_OK(mutex.Acquire(Wait::Try())) << "released as usual: nothing to report";
}

TEST_F(MutexTest, KilledJustAfterItsReleaseLeavesAFreeMutex) {
  Mutex mutex = NewMutex();
  ASSERT_OK(mutex.Acquire(Wait::Try()));
  std::thread waiter([&] {
    ASSERT_OK(mutex.Acquire(Wait::Forever()));
    ASSERT_OK(mutex.Release());
  });
  Until([&] { return Sleepers(mutex) == 1; });
  DieAt("mutex-before-wake", [&](HostId self) { As(mutex, self).Release().IgnoreError(); });
  waiter.join();
  ASSERT_OK(mutex.Acquire(Wait::Try()));
}

TEST_F(MutexTest, CleanExitWhileHoldingKeepsItLocked) {
  Mutex mutex = NewMutex();
  EXPECT_EQ(temp_.RunHost([&](HostId self) { ASSERT_OK(As(mutex, self).Acquire(Wait::Try())); }), Exited(0));
  EXPECT_TRUE(mutex.locked());
  EXPECT_TRUE(absl::IsDeadlineExceeded(mutex.Acquire(For(absl::Milliseconds(200)))));
  ASSERT_OK(mutex.Release());
  ASSERT_OK(mutex.Acquire(Wait::Try()));
}

TEST_F(MutexTest, OwnerWithoutAHandleEndsLikeAnyOther) {
  for (int code : {0, 3}) {
    Mutex mutex = NewMutex();
    EXPECT_EQ(temp_.RunHost([&](HostId self) {
      ASSERT_OK(As(mutex, self).Acquire(Wait::Try()));
      segment().objects().Drop(mutex.handle(), self, self);
      if (code != 0) _exit(code);
    }),
              Exited(code));
    EXPECT_TRUE(absl::IsDeadlineExceeded(mutex.Acquire(For(absl::Milliseconds(200))))) << "it exited, nobody killed it";
    ASSERT_OK(mutex.Release());
  }
  Mutex mutex = NewMutex();
  EXPECT_EQ(temp_.RunHost([&](HostId self) {
    ASSERT_OK(As(mutex, self).Acquire(Wait::Try()));
    segment().objects().Drop(mutex.handle(), self, self);
    raise(SIGKILL);
  }),
            Killed(SIGKILL));
  EXPECT_TRUE(absl::IsAborted(mutex.Acquire(Wait::Try())));
}

TEST_F(MutexTest, SleepingWaiterLearnsOfTheDeathByRecovery) {
  Mutex mutex = NewMutex();
  HostId id;
  auto holder = temp_.StartHost(
      [&](HostId self) {
        ASSERT_OK(As(mutex, self).Acquire(Wait::Try()));
        pause();
      },
      &id);
  Until([&] { return mutex.owner() == id; });
  std::vector<std::thread> waiters;
  std::atomic<int> told{0};
  for (int i = 0; i < 3; ++i) {
    waiters.emplace_back([&] {
      const absl::Status status = mutex.Acquire(Wait::Forever());
      told += absl::IsAborted(status);
      if (status.ok()) {
        ASSERT_OK(mutex.Release());
      }
    });
  }
  Until([&] { return Sleepers(mutex) >= 2; });
  temp_.Bury(id, holder->Kill());
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_EQ(told, 1) << "exactly one is told, the others get the mutex";
}

TEST_F(MutexTest, WaiterNoticesTheDeathWithoutAnyRecovery) {
  Mutex mutex = NewMutex();
  HostId id;
  auto holder = temp_.StartHost(
      [&](HostId self) {
        ASSERT_OK(As(mutex, self).Acquire(Wait::Try()));
        pause();
      },
      &id);
  Until([&] { return mutex.owner() == id; });
  const auto end = holder->Kill();
  EXPECT_TRUE(absl::IsAborted(mutex.Acquire(Wait::Forever())));
  ASSERT_OK(mutex.Acquire(Wait::Try()));
  ASSERT_OK(mutex.Release());
  temp_.Bury(id, end);
}

TEST_F(MutexTest, WhoeverMarksADeathAndDiesLeavesTheNewsToTheOthers) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
  Mutex mutex = NewMutex();
  HostId holder_id;
  auto holder = temp_.StartHost(
      [&](HostId self) {
        ASSERT_OK(As(mutex, self).Acquire(Wait::Try()));
        pause();
      },
      &holder_id);
  Until([&] { return mutex.owner() == holder_id; });
  std::atomic<int> told = 0;
  std::thread waiter([&] { told += absl::IsAborted(mutex.Acquire(Wait::Forever())); });
  Until([&] { return Sleepers(mutex) >= 1; });
  const auto end = holder->Kill();
  segment().hosts().SetExit(holder_id, {ExitStatus::Kind::kSignaled, SIGKILL}, true);
  const auto recoverer = temp_.RunHost([&](HostId self) {
    testing::KillAtCrashPoint("mutex-owner-marked");
    if (segment().hosts().BeginRecovery(holder_id, self)) segment().objects().Recover(holder_id, self);
  });
  // The waiter may have looked for itself first: then there was nothing to mark.
  EXPECT_TRUE(recoverer == Killed(SIGKILL) || recoverer == Exited(0));
  waiter.join();
  EXPECT_EQ(told, 1);
  temp_.Bury(holder_id, end);
  ASSERT_OK(mutex.Acquire(Wait::Try()));
  ASSERT_OK(mutex.Release());
}

TEST_F(MutexTest, DeadWaiterDoesNotSwallowTheWakeUp) {
  Mutex mutex = NewMutex();
  for (int round = 0; round < 20; ++round) {
    ASSERT_OK(mutex.Acquire(Wait::Try()));
    HostId id;
    auto dying = temp_.StartHost(
        [&](HostId self) {
          testing::KillAtCrashPoint("mutex-acquired");
          As(mutex, self).Acquire(Wait::Forever()).IgnoreError();
        },
        &id);
    Until([&] { return Sleepers(mutex) >= 1; });
    HostId living_id;
    auto living = temp_.StartHost(
        [&](HostId self) {
          Mutex same = As(mutex, self);
          absl::Status status = same.Acquire(Wait::Forever());
          if (absl::IsAborted(status)) status = same.Acquire(Wait::Forever());
          ASSERT_OK(status);
          ASSERT_OK(same.Release());
        },
        &living_id);
    Until([&] { return Sleepers(mutex) >= 2; });
    ASSERT_OK(mutex.Release());
    const auto died = dying->Reap();
    EXPECT_EQ(died, Killed(SIGKILL));
    temp_.Bury(id, died);
    const auto end = living->Reap();
    ASSERT_EQ(end, Exited(0));
    temp_.Bury(living_id, end);
    if (absl::Status left = mutex.Acquire(Wait::Try()); left.ok()) {
      ASSERT_OK(mutex.Release());
    }
  }
}

TEST_F(MutexTest, OnlyAMutexOpensAsOne) {
  EXPECT_TRUE(absl::IsInvalidArgument(Mutex::Open(segment(), me(), NewEvent().handle()).status()));
  EXPECT_TRUE(absl::IsNotFound(
      Mutex::Open(segment(), me(), Handle(ObjectKind::kMutex, 99, 4000)).status()));
}

}  // namespace
}  // namespace pyhost
