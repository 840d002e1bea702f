#include "runtime/sync/waiter.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <new>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "runtime/os/cpu.h"
#include "runtime/testing/temp_segment.h"

namespace pyhost {
namespace {

using testing::Exited;
using testing::Killed;
using testing::TempSegment;

// A counting semaphore: the smallest user of a WaitPoint.
struct Permits {
  WaitPoint available;
  std::atomic<int> count;

  bool TryTake() {
    int now = count.load();
    while (now > 0) {
      if (count.compare_exchange_weak(now, now - 1)) return true;
    }
    return false;
  }
  absl::Status Take(HostId me, Wait wait = Wait::Forever()) {
    return available.Await(me, wait, [this] { return TryTake(); });
  }
  void Give(int permits = 1) {
    count.fetch_add(permits);
    available.Notify(static_cast<uint32_t>(permits));
  }
};

struct Shared {
  Permits a;
  Permits b;
};

class WaitPointTest : public ::testing::Test {
 protected:
  WaitPointTest()
      : shared_(new (mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
                    Shared{}) {}
  ~WaitPointTest() override { munmap(shared_, sizeof(Shared)); }

  static void UntilAsleep(const Permits& permits, uint32_t sleepers) {
    while (permits.available.sleepers() < sleepers) std::this_thread::yield();
  }

  TempSegment segment_;
  Shared* shared_;
  HostId me_ = segment_.me();
};

class Recorder final : public Interruptible {
 public:
  absl::Status OnSignal() override {
    ++signals;
    return answer;
  }
  void BeginBlocking() override { ++begun; }
  void EndBlocking() override { ++ended; }
  std::atomic<int> signals{0};
  int begun = 0;
  int ended = 0;
  absl::Status answer;
};

TEST_F(WaitPointTest, WhatIsReadyIsTakenWithoutBlocking) {
  Recorder recorder;
  shared_->a.Give();
  EXPECT_TRUE(shared_->a.Take(me_, {Deadline::Never(), &recorder}).ok());
  EXPECT_EQ(shared_->a.Take(me_, {Deadline::Now(), &recorder}).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(recorder.begun, 0);
}

TEST_F(WaitPointTest, DeadlineEndsTheWaitAndBlockingIsPaired) {
  Recorder recorder;
  const absl::Time start = absl::Now();
  EXPECT_EQ(shared_->a.Take(me_, {Deadline::After(absl::Milliseconds(120)), &recorder}).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(119));
  EXPECT_EQ(recorder.begun, 1);
  EXPECT_EQ(recorder.ended, 1);
  EXPECT_EQ(shared_->a.available.sleepers(), 0u);
  EXPECT_EQ(shared_->a.available.spinner(), HostId());
}

TEST_F(WaitPointTest, NotifyWithoutSleepersLeavesNoTrace) {
  shared_->a.Give(5);
  EXPECT_EQ(shared_->a.available.sleepers(), 0u);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(shared_->a.Take(me_, Wait::Try()).ok());
}

TEST_F(WaitPointTest, EverySleeperIsWokenOnce) {
  constexpr uint32_t kThreads = 5;
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] { EXPECT_TRUE(shared_->a.Take(me_).ok()); });
  }
  UntilAsleep(shared_->a, kThreads);
  shared_->a.Give(2);
  shared_->a.Give(3);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(shared_->a.count.load(), 0);
}

TEST_F(WaitPointTest, NoWakeUpIsLostBetweenProcesses) {
  constexpr int kRounds = 20'000;
  HostId id;
  auto child = segment_.StartHost(
      [&](HostId self) {
        for (int i = 0; i < kRounds; ++i) {
          ASSERT_TRUE(shared_->a.Take(self, {Deadline::After(absl::Seconds(60))}).ok());
          shared_->b.Give();
          if (i % 500 == 0) absl::SleepFor(absl::Microseconds(200));  // so that the other side falls asleep too
        }
      },
      &id);
  for (int i = 0; i < kRounds; ++i) {
    shared_->a.Give();
    ASSERT_TRUE(shared_->b.Take(me_, {Deadline::After(absl::Seconds(60))}).ok());
  }
  EXPECT_EQ(child->Reap(), Exited(0));
}

TEST_F(WaitPointTest, ManyGiversAndTakersLoseNothing) {
  constexpr int kEach = 200'000;
  const int64_t start = Deadline::MonotonicNanos();
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kEach; ++i) EXPECT_TRUE(shared_->a.Take(me_).ok());
    });
    threads.emplace_back([&] {
      for (int i = 0; i < kEach; ++i) shared_->a.Give();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(shared_->a.count.load(), 0);
  // Lost wake-ups would show as patiences of seconds.
  EXPECT_LT(Deadline::MonotonicNanos() - start, int64_t{60} * 1'000'000'000);
}

TEST_F(WaitPointTest, DeadSleepersCostOneNeedlessWakeEach) {
  for (int i = 0; i < 3; ++i) {
    HostId id;
    auto child = segment_.StartHost([&](HostId self) { static_cast<void>(shared_->a.Take(self)); }, &id);
    UntilAsleep(shared_->a, static_cast<uint32_t>(i + 1));
    child->Kill();
  }
  std::thread taker([&] { EXPECT_TRUE(shared_->a.Take(me_).ok()); });
  UntilAsleep(shared_->a, 4);
  shared_->a.Give();
  taker.join();
  for (int i = 0; i < 3; ++i) shared_->a.available.Notify();
  EXPECT_EQ(shared_->a.available.sleepers(), 0u);
}

TEST_F(WaitPointTest, SpinnerPassesOnAWakeUpThatItWasGivenAfterItTook) {
  if (!SpinningPays()) GTEST_SKIP() << "nobody spins with one processor";
  std::thread sleeper([&] { EXPECT_TRUE(shared_->a.Take(me_).ok()); });
  UntilAsleep(shared_->a, 1);
  // The spinner takes a first permit; in the moment before it says that it spins no more, a second one is given.
  const auto take_while_another_is_given = [&] {
    if (shared_->a.available.spinner() != me_) return false;
    shared_->a.Give();
    EXPECT_EQ(shared_->a.available.spinner(), HostId()) << "the waker counts on the spinner";
    return true;
  };
  EXPECT_TRUE(shared_->a.available.Await(me_, Wait::Forever(), take_while_another_is_given).ok());
  EXPECT_EQ(shared_->a.available.sleepers(), 0u) << "the sleeper was not woken for the second permit";
  sleeper.join();
}

TEST_F(WaitPointTest, RecoveryWakesWhoeverADeadSpinnerLetSleep) {
  // A registration of a host that is gone swallows one wake-up ...
  const HostId dead = segment_.NewHost();
  std::thread taker([&] { EXPECT_TRUE(shared_->a.Take(me_).ok()); });
  UntilAsleep(shared_->a, 1);
  reinterpret_cast<std::atomic<uint32_t>*>(&shared_->a.available)[2].store(dead.value());
  ASSERT_EQ(shared_->a.available.spinner(), dead);
  shared_->a.Give();
  // ... which its recovery makes good.
  shared_->a.available.Recover(dead);
  taker.join();
  EXPECT_EQ(shared_->a.available.spinner(), HostId());
}

TEST_F(WaitPointTest, PatienceMakesGoodALostWakeUp) {
  std::thread taker([&] { EXPECT_TRUE(shared_->a.Take(me_, {Deadline::After(absl::Seconds(30))}).ok()); });
  UntilAsleep(shared_->a, 1);
  shared_->a.count.fetch_add(1);  // and nobody notifies
  taker.join();
}

TEST_F(WaitPointTest, PatienceHookEndsTheWait) {
  int calls = 0;
  const absl::Status status = shared_->a.available.Await(
      me_, Wait::Forever(), [] { return false; },
      [&] { return ++calls < 2 ? absl::OkStatus() : absl::UnavailableError("the supervisor is gone"); });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(shared_->a.available.sleepers(), 0u);
}

// ---- Signals ----

void IgnoreAlarm(int) {}

class WaitPointSignalTest : public WaitPointTest {
 protected:
  WaitPointSignalTest() {
    struct sigaction action = {};
    action.sa_handler = IgnoreAlarm;  // no SA_RESTART
    sigaction(SIGUSR1, &action, &old_);
  }
  ~WaitPointSignalTest() override { sigaction(SIGUSR1, &old_, nullptr); }
  struct sigaction old_;
};

TEST_F(WaitPointSignalTest, SignalRunsTheHandlerAndTheWaitGoesOn) {
  Recorder recorder;
  std::thread taker([&] { EXPECT_TRUE(shared_->a.Take(me_, {Deadline::Never(), &recorder}).ok()); });
  while (recorder.signals.load() < 3) {
    pthread_kill(taker.native_handle(), SIGUSR1);
    std::this_thread::yield();
  }
  shared_->a.Give();
  taker.join();
  EXPECT_EQ(recorder.begun, recorder.ended);
}

TEST_F(WaitPointSignalTest, HandlersErrorEndsTheWait) {
  Recorder recorder;
  recorder.answer = absl::CancelledError("interrupted");
  std::atomic<bool> done{false};
  std::thread taker([&] {
    EXPECT_EQ(shared_->a.Take(me_, {Deadline::Never(), &recorder}).code(), absl::StatusCode::kCancelled);
    done.store(true);
  });
  UntilAsleep(shared_->a, 1);
  while (!done.load()) {
    pthread_kill(taker.native_handle(), SIGUSR1);
    std::this_thread::yield();
  }
  taker.join();
  EXPECT_EQ(shared_->a.available.sleepers(), 0u);
}

TEST_F(WaitPointSignalTest, SignalDoesNotRestartTheDeadline) {
  const absl::Time start = absl::Now();
  std::thread taker([&] {
    EXPECT_EQ(shared_->a.Take(me_, {Deadline::After(absl::Milliseconds(200))}).code(),
              absl::StatusCode::kDeadlineExceeded);
  });
  while (absl::Now() - start < absl::Milliseconds(150)) {
    pthread_kill(taker.native_handle(), SIGUSR1);
    absl::SleepFor(absl::Milliseconds(5));
  }
  taker.join();
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
}

TEST_F(WaitPointTest, SleepingCostsNoProcessorTime) {
  const absl::Time start = absl::Now();
  rusage before;
  rusage after;
  getrusage(RUSAGE_THREAD, &before);
  EXPECT_FALSE(shared_->a.Take(me_, {Deadline::After(absl::Seconds(1))}).ok());
  getrusage(RUSAGE_THREAD, &after);
  const auto micros = [](const rusage& usage) {
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1'000'000 + usage.ru_utime.tv_usec +
           usage.ru_stime.tv_usec;
  };
  EXPECT_LT(micros(after) - micros(before), absl::ToInt64Microseconds(absl::Now() - start) / 20);
}

}  // namespace
}  // namespace pyhost
