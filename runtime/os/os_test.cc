// Processors, processes, pages wiped on fork, futexes.

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "runtime/os/cpu.h"
#include "runtime/os/crowding.h"
#include "runtime/os/fork_wiped_page.h"
#include "runtime/os/futex.h"
#include "runtime/os/process.h"
#include "runtime/testing/child.h"

namespace pyhost {
namespace {

using testing::Child;
using testing::Exited;
using testing::RunInChild;

TEST(CpuTest, OneCoreMeansNoSpinning) {
  EXPECT_GE(UsableCores(), 1);
  EXPECT_EQ(RunInChild([] {
    cpu_set_t mask;
    ASSERT_EQ(sched_getaffinity(0, sizeof(mask), &mask), 0);
    int first = 0;
    while (!CPU_ISSET(first, &mask)) ++first;
    CPU_ZERO(&mask);
    CPU_SET(first, &mask);
    ASSERT_EQ(sched_setaffinity(0, sizeof(mask), &mask), 0);
    EXPECT_EQ(UsableCores(), 1);
    RefreshUsableCores();
    EXPECT_FALSE(SpinningPays());
  }),
            Exited(0));
}

TEST(CrowdingTest, RunnableThreadsAreTheFirstOfTheCounts) {
  EXPECT_EQ(RunnableThreads("0.20 0.18 0.12 2/345 11206\n"), 2);
  EXPECT_EQ(RunnableThreads("23.00 20.50 11.96 17/1612 20480"), 17);
}

TEST(CrowdingTest, TextThatSaysNothingOfThreadsIsNoCrowd) {
  for (const char* text : {"", "0.20 0.18 0.12", "0.20 0.18 0.12 x/345 1", "0.20 0.18 0.12 2 1"}) {
    EXPECT_EQ(RunnableThreads(text), std::nullopt) << text;
  }
}

TEST(CrowdingTest, NobodySpinsBesideMoreBusyProcessesThanProcessors) {
  std::vector<std::unique_ptr<Child>> busy;
  for (long i = 0; i < 2 * sysconf(_SC_NPROCESSORS_ONLN) + 1; ++i) {
    busy.push_back(std::make_unique<Child>([] {
      for (;;) SpinPause();
    }));
  }
  const Deadline deadline = Deadline::After(absl::Seconds(20));
  while (!MachineIsCrowded() && !deadline.Expired()) {
  }
  EXPECT_TRUE(MachineIsCrowded());
  EXPECT_FALSE(SpinningPays());
}

TEST(ProcessTest, ParsesNamesWithSpacesAndParentheses) {
  const auto stat = ParseProcessStat("7 (a) R (b c) S 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4321 9 9 9\n");
  ASSERT_TRUE(stat.ok()) << stat.status();
  EXPECT_EQ(stat->state, 'S');
  EXPECT_EQ(stat->parent, 3);
  EXPECT_EQ(stat->start_time, 4321u);
}

TEST(ProcessTest, MalformedTextIsDataLoss) {
  for (const char* text : {"", "7 (a", "7 (a) R", "7 (a) RR 3 7 7 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 4321",
                           "7 (a) R 3 7 7 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 x"}) {
    EXPECT_EQ(ParseProcessStat(text).status().code(), absl::StatusCode::kDataLoss) << text;
  }
}

TEST(ProcessTest, KnowsTheLivingTheStoppedTheZombieAndTheReaped) {
  Child child([] {
    prctl(PR_SET_NAME, "odd ) name (");
    pause();
  });
  const auto stat = GetProcessStat(child.pid());
  ASSERT_TRUE(stat.ok());
  EXPECT_EQ(stat->parent, getpid());
  EXPECT_FALSE(ProcessIsGone(child.pid(), stat->start_time));
  EXPECT_FALSE(ProcessIsGone(child.pid(), 0));
  EXPECT_TRUE(ProcessIsGone(child.pid(), stat->start_time + 1)) << "another process with this pid";
  child.Signal(SIGSTOP);
  EXPECT_FALSE(ProcessIsGone(child.pid(), stat->start_time));
  child.Signal(SIGKILL);
  while (!ProcessIsGone(child.pid(), stat->start_time)) std::this_thread::yield();
  child.Reap();
  EXPECT_TRUE(ProcessIsGone(child.pid(), stat->start_time));
  EXPECT_EQ(GetProcessStat(child.pid()).status().code(), absl::StatusCode::kNotFound);
}

TEST(ProcessTest, NobodysPidIsNotGone) { EXPECT_FALSE(ProcessIsGone(0, 0)); }

TEST(ForkWipedPageTest, ChildFindsZeros) {
  auto page = ForkWipedPage::Create();
  ASSERT_TRUE(page.ok()) << page.status();
  std::byte* data = (*page)->data();
  data[0] = data[4095] = std::byte{1};
  EXPECT_EQ(RunInChild([&] {
    EXPECT_EQ(data[0], std::byte{0});
    EXPECT_EQ(data[4095], std::byte{0});
  }),
            Exited(0));
  EXPECT_EQ(data[0], std::byte{1});
}

TEST(FutexTest, ChangedWordDoesNotSleepAndDeadlineEndsTheSleep) {
  std::atomic<uint32_t> word{5};
  EXPECT_EQ(futex::Wait(word, 4, Deadline::Never()), futex::WaitResult::kChanged);
  EXPECT_EQ(futex::Wait(word, 5, Deadline::Now()), futex::WaitResult::kTimedOut);
  EXPECT_EQ(futex::Wait(word, 5, Deadline::After(absl::Milliseconds(5))), futex::WaitResult::kTimedOut);
  EXPECT_EQ(futex::Wake(word, 1), 0);
}

TEST(FutexTest, WakesAnotherProcess) {
  auto* word = static_cast<std::atomic<uint32_t>*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  Child child([&] {
    while (word->load() == 0) futex::Wait(*word, 0, Deadline::Never());
  });
  while (futex::Wake(*word, 1) == 0) std::this_thread::yield();  // asleep in the kernel, in another mapping
  word->store(1);
  futex::Wake(*word, 1);
  EXPECT_EQ(child.Reap(), Exited(0));
  munmap(word, 4096);
}

}  // namespace
}  // namespace pyhost
