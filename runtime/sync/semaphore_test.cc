#include "runtime/sync/semaphore.h"

#include <atomic>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/sync/sync_test_util.h"

namespace pyhost {
namespace {

class SemaphoreTest : public SyncFixture {
 protected:
  uint32_t Sleepers(const Semaphore& semaphore) {
    return StateOf<SemaphoreState>(semaphore)->permits.sleepers();
  }
};

TEST_F(SemaphoreTest, CountsPermits) {
  Semaphore semaphore = NewSemaphore(2);
  ASSERT_OK(semaphore.Acquire(Wait::Try()));
  ASSERT_OK(semaphore.Acquire(Wait::Try()));
  EXPECT_EQ(semaphore.value(), 0u);
  EXPECT_TRUE(absl::IsDeadlineExceeded(semaphore.Acquire(Wait::Try())));
  EXPECT_TRUE(absl::IsDeadlineExceeded(semaphore.Acquire(For(absl::Milliseconds(20)))));
  ASSERT_OK(semaphore.Release(3));
  EXPECT_EQ(semaphore.value(), 3u);
}

TEST_F(SemaphoreTest, BoundedSemaphoreRefusesOnePermitTooMany) {
  Semaphore semaphore = NewSemaphore(1, 2);
  ASSERT_OK(semaphore.Release());
  const absl::Status status = semaphore.Release();
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_EQ(status.message(), "semaphore or lock released too many times");
  EXPECT_EQ(semaphore.value(), 2u);
  EXPECT_TRUE(absl::IsFailedPrecondition(NewSemaphore(Semaphore::kMaxValue).Release()));
}

TEST_F(SemaphoreTest, ImpossibleValuesAreRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(Semaphore::Create(segment(), me(), 3, 2).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Semaphore::Create(segment(), me(), 0, 0x80000000).status()));
}

TEST_F(SemaphoreTest, NoPermitIsLostOrInvented) {
  Semaphore semaphore = NewSemaphore(2);
  std::atomic<int> inside{0}, most{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5'000; ++i) {
        ASSERT_OK(semaphore.Acquire(Wait::Forever()));
        const int now = ++inside;
        for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
        }
        --inside;
        ASSERT_OK(semaphore.Release());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most, 2);
  EXPECT_EQ(semaphore.value(), 2u);
}

TEST_F(SemaphoreTest, SeveralPermitsWakeAsMany) {
  Semaphore semaphore = NewSemaphore(0);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) threads.emplace_back([&] { ASSERT_OK(semaphore.Acquire(Wait::Forever())); });
  Until([&] { return Sleepers(semaphore) >= 3; });
  ASSERT_OK(semaphore.Release(4));
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(semaphore.value(), 0u);
}

TEST_F(SemaphoreTest, PermitOfADeadHostIsNotGivenBack) {
  Semaphore semaphore = NewSemaphore(1);
  DieAt("semaphore-acquired", [&](HostId self) { As(semaphore, self).Acquire(Wait::Try()).IgnoreError(); });
  EXPECT_EQ(semaphore.value(), 0u);
}

TEST_F(SemaphoreTest, WakeUpOfADeadReleaserIsMadeGood) {
  Semaphore semaphore = NewSemaphore(0);
  std::thread waiter([&] { ASSERT_OK(semaphore.Acquire(Wait::Forever())); });
  Until([&] { return Sleepers(semaphore) == 1; });
  DieAt("semaphore-released", [&](HostId self) { As(semaphore, self).Release().IgnoreError(); });
  waiter.join();
}

}  // namespace
}  // namespace pyhost
