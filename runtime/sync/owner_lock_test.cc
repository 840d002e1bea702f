#include "runtime/sync/owner_lock.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <new>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "runtime/base/long_wait.h"
#include "runtime/base/mutex_lock.h"
#include "runtime/testing/temp_segment.h"

namespace pyhost {
namespace {

using testing::Exited;
using testing::Killed;
using testing::TempSegment;
using Acquired = OwnerLock::Acquired;

struct Shared {
  OwnerLock lock;
  std::atomic<int> stage;
  long counter;  // guarded by lock
};

class OwnerLockTest : public ::testing::Test {
 protected:
  OwnerLockTest()
      : shared_(new (mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
                    Shared{}) {}
  ~OwnerLockTest() override { munmap(shared_, sizeof(Shared)); }

  Acquired Lock(HostId who) { return lock_.Lock(segment_.hosts(), who); }

  TempSegment segment_;
  Shared* shared_;
  OwnerLock& lock_ = shared_->lock;
};

TEST_F(OwnerLockTest, NamesItsOwner) {
  EXPECT_EQ(lock_.owner(), HostId());
  EXPECT_EQ(Lock(segment_.me()), Acquired::kClean);
  EXPECT_EQ(lock_.owner(), segment_.me());
  EXPECT_FALSE(lock_.TryLock(segment_.NewHost()));
  lock_.Unlock(segment_.me());
  EXPECT_EQ(lock_.owner(), HostId());
  EXPECT_TRUE(lock_.TryLock(segment_.me()));
}

TEST_F(OwnerLockTest, ThreadsExcludeEachOther) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 20'000;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kRounds; ++i) {
        EXPECT_EQ(Lock(segment_.me()), Acquired::kClean);
        ++shared_->counter;
        lock_.Unlock(segment_.me());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(shared_->counter, kThreads * kRounds);
}

TEST_F(OwnerLockTest, ProcessesExcludeEachOther) {
  constexpr int kRounds = 50'000;
  const auto count = [&](HostId self) {
    for (int i = 0; i < kRounds; ++i) {
      EXPECT_EQ(Lock(self), Acquired::kClean);
      ++shared_->counter;
      lock_.Unlock(self);
    }
  };
  HostId ids[2];
  auto first = segment_.StartHost(count, &ids[0]);
  auto second = segment_.StartHost(count, &ids[1]);
  count(segment_.me());
  EXPECT_EQ(first->Reap(), Exited(0));
  EXPECT_EQ(second->Reap(), Exited(0));
  EXPECT_EQ(shared_->counter, 3 * kRounds);
}

// The hooks of LongWait for a scope.  A wait that gave something up frees the lock that it waits for.
class HooksThatUnlock {
 public:
  HooksThatUnlock(OwnerLock& lock, HostId owner) {
    lock_ = &lock;
    owner_ = owner;
    begun_ = ended_ = 0;
    SetLongWaitHooks({.begin = Begin, .end = End});
  }
  ~HooksThatUnlock() { SetLongWaitHooks({}); }

  int begun() const { return begun_; }
  int ended() const { return ended_; }

 private:
  static void* Begin() {
    ++begun_;
    lock_->Unlock(owner_);
    return &begun_;
  }
  static void End(void* given) { ended_ += given == &begun_; }

  static inline OwnerLock* lock_;
  static inline HostId owner_;
  static inline std::atomic<int> begun_, ended_;
};

TEST_F(OwnerLockTest, WaiterWhosePatienceEndsGivesUpWhatItHolds) {
  const HostId other = segment_.NewHost();
  ASSERT_TRUE(lock_.TryLock(other));
  const HooksThatUnlock hooks(lock_, other);
  EXPECT_EQ(Lock(segment_.me()), Acquired::kClean) << "nobody else would have freed it";
  EXPECT_EQ(hooks.begun(), 1);
  EXPECT_EQ(hooks.ended(), 1);
}

TEST_F(OwnerLockTest, WaiterForAMutexOfAWaiterGivesUpWhatItHoldsToo) {
  const HostId other = segment_.NewHost();
  ASSERT_TRUE(lock_.TryLock(other));
  const HooksThatUnlock hooks(lock_, other);  // Stands for a thread that can run only when somebody gives something up.
  absl::Mutex mutex;
  std::atomic<bool> is_taken = false;
  std::jthread owner([&] {
    const MutexLock held(mutex);
    is_taken = true;
    EXPECT_EQ(Lock(segment_.me()), Acquired::kClean);
  });
  while (!is_taken) std::this_thread::yield();
  {
    const MutexLock held(mutex);
  }
  EXPECT_GE(hooks.begun(), 1);
}

TEST_F(OwnerLockTest, DeadOwnersLockIsTakenOverWithoutAnyRecovery) {
  HostId id;
  auto child = segment_.StartHost([&](HostId self) { EXPECT_EQ(Lock(self), Acquired::kClean); }, &id);
  while (lock_.owner() != id) std::this_thread::yield();
  EXPECT_EQ(Lock(segment_.me()), Acquired::kOwnerDied);  // perhaps still a zombie
  child->Reap();
  lock_.Unlock(segment_.me());
  EXPECT_EQ(Lock(segment_.me()), Acquired::kClean);
}

TEST_F(OwnerLockTest, DeadRepairerLeavesTheRepairToTheNext) {
  for (int i = 0; i < 2; ++i) {
    HostId id;
    auto child = segment_.StartHost(
        [&](HostId self) { EXPECT_EQ(Lock(self), i == 0 ? Acquired::kClean : Acquired::kOwnerDied); }, &id);
    EXPECT_EQ(child->Reap(), Exited(0));
  }
  EXPECT_EQ(Lock(segment_.me()), Acquired::kOwnerDied);
}

TEST_F(OwnerLockTest, RecoveryTakesOverAtOnceAndOnlyFromTheDead) {
  const HostId dead = segment_.NewHost();
  const HostId other = segment_.NewHost();
  EXPECT_FALSE(lock_.TakeOver(dead, segment_.me()));
  ASSERT_TRUE(lock_.TryLock(dead));
  EXPECT_FALSE(lock_.TakeOver(other, segment_.me()));
  EXPECT_TRUE(lock_.TakeOver(dead, segment_.me()));
  EXPECT_EQ(lock_.owner(), segment_.me());
  lock_.Unlock(segment_.me());
  EXPECT_EQ(lock_.owner(), HostId());
}

TEST_F(OwnerLockTest, StoppedOwnerKeepsItsLock) {
  HostId id;
  auto child = segment_.StartHost(
      [&](HostId self) {
        EXPECT_EQ(Lock(self), Acquired::kClean);
        shared_->stage.store(1);
        raise(SIGSTOP);
        lock_.Unlock(self);
        pause();
      },
      &id);
  while (shared_->stage.load() == 0) std::this_thread::yield();
  std::thread waiter([&] {
    EXPECT_EQ(Lock(segment_.me()), Acquired::kClean);
    EXPECT_EQ(shared_->stage.load(), 2);
    lock_.Unlock(segment_.me());
  });
  absl::SleepFor(absl::Milliseconds(300));  // longer than the waiter's first patiences, which is the point
  EXPECT_EQ(lock_.owner(), id);
  shared_->stage.store(2);
  child->Signal(SIGCONT);
  waiter.join();
  EXPECT_EQ(child->Kill(), Killed(SIGKILL));
}

TEST_F(OwnerLockTest, RandomKillsNeverLoseTheLock) {
  for (int i = 0; i < 30; ++i) {
    HostId id;
    auto child = segment_.StartHost(
        [&](HostId self) {
          for (;;) {
            static_cast<void>(Lock(self));
            ++shared_->counter;
            lock_.Unlock(self);
          }
        },
        &id);
    for (int round = 0; round < 100 + i * 50; ++round) {
      static_cast<void>(Lock(segment_.me()));
      ++shared_->counter;
      lock_.Unlock(segment_.me());
    }
    child->Kill();
    static_cast<void>(Lock(segment_.me()));
    lock_.Unlock(segment_.me());
    segment_.Bury(id, Killed(SIGKILL));
  }
}

}  // namespace
}  // namespace pyhost
