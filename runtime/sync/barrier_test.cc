#include "runtime/sync/barrier.h"

#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/sync/sync_test_util.h"

namespace pyhost {
namespace {

using ::pyhost::testing::Exited;
using ::pyhost::testing::Killed;
using ::testing::ElementsAre;

// Whose handler raises, the first time that it is asked.
class Interrupting : public Interruptible {
 public:
  absl::Status OnSignal() override { return absl::CancelledError("interrupted"); }
};

class BarrierTest : public SyncFixture {
 protected:
  std::thread Party(Barrier& barrier, std::atomic<int>& broken) {
    return std::thread([&] { broken += absl::IsAborted(barrier.Arrive(Wait::Forever()).status()); });
  }
};

TEST_F(BarrierTest, ReleasesWhenAllHaveComeAgainAndAgain) {
  constexpr int kParties = 7, kRounds = 300;
  Barrier barrier = NewBarrier(kParties);
  std::vector<std::atomic<uint32_t>> indices(kRounds);
  std::atomic<int> actions{0};
  std::vector<std::thread> threads;
  for (int p = 0; p < kParties; ++p) {
    threads.emplace_back([&] {
      for (int round = 0; round < kRounds; ++round) {
        absl::StatusOr<uint32_t> index = barrier.Arrive(Wait::Forever(), [&] {
          EXPECT_EQ(actions++, round);
          return absl::OkStatus();
        });
        ASSERT_OK(index.status());
        EXPECT_EQ(indices[round].fetch_or(1u << *index) & 1u << *index, 0u) << "each index once";
        EXPECT_GT(actions, round) << "the action comes before the release";
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& seen : indices) EXPECT_EQ(seen, (1u << kParties) - 1);
  EXPECT_EQ(actions, kRounds);
}

TEST_F(BarrierTest, OnePartyNeverWaits) {
  Barrier barrier = NewBarrier(1);
  EXPECT_EQ(*barrier.Arrive(Wait::Try()), 0u);
  EXPECT_EQ(*barrier.Arrive(Wait::Try()), 0u);
  EXPECT_TRUE(absl::IsInvalidArgument(Barrier::Create(segment(), me(), 0).status()));
}

TEST_F(BarrierTest, TimeOutBreaksItForAll) {
  Barrier barrier = NewBarrier(3);
  std::atomic<int> broken{0};
  std::thread other = Party(barrier, broken);
  Until([&] { return barrier.n_waiting() == 1; });
  EXPECT_TRUE(absl::IsAborted(barrier.Arrive(For(absl::Milliseconds(20))).status()));
  other.join();
  EXPECT_EQ(broken, 1);
  EXPECT_TRUE(barrier.broken());
  EXPECT_TRUE(absl::IsAborted(barrier.Arrive(Wait::Forever()).status()));
  barrier.Reset();
  EXPECT_FALSE(barrier.broken());
}

TEST_F(BarrierTest, InterruptBreaksItAlsoForOneThatCameBeforeTheLastRoundWasOver) {
  Barrier barrier = NewBarrier(1);
  std::atomic<bool> acting{false}, go_on{false};
  absl::Status acted;
  std::thread last([&] {
    acted = barrier.Arrive(Wait::Forever(), [&] {
      acting = true;
      Until([&] { return go_on.load(); });
      return absl::OkStatus();
    }).status();
  });
  Until([&] { return acting.load(); });
  Interrupting interrupting;
  EXPECT_TRUE(absl::IsCancelled(barrier.Arrive({Deadline::Never(), &interrupting}).status()));
  EXPECT_TRUE(barrier.broken()) << "it will be missing in the next round";
  go_on = true;
  last.join();
  EXPECT_TRUE(absl::IsAborted(acted)) << acted;
}

TEST_F(BarrierTest, ResetSendsTheWaitingAwayAndTheBarrierIsUsable) {
  Barrier barrier = NewBarrier(2);
  std::atomic<int> broken{0};
  std::thread waiting = Party(barrier, broken);
  Until([&] { return barrier.n_waiting() == 1; });
  barrier.Reset();
  waiting.join();
  EXPECT_EQ(broken, 1);
  EXPECT_FALSE(barrier.broken());
  std::thread party = Party(barrier, broken);
  EXPECT_OK(barrier.Arrive(Wait::Forever()).status());
  party.join();
  EXPECT_EQ(broken, 1);
}

TEST_F(BarrierTest, AbortBreaksItUntilReset) {
  Barrier barrier = NewBarrier(2);
  std::atomic<int> broken{0};
  std::thread waiting = Party(barrier, broken);
  Until([&] { return barrier.n_waiting() == 1; });
  barrier.Abort();
  waiting.join();
  EXPECT_TRUE(barrier.broken());
  EXPECT_EQ(barrier.n_waiting(), 0u);
}

TEST_F(BarrierTest, FailingActionBreaksItAndIsReported) {
  Barrier barrier = NewBarrier(2);
  std::atomic<int> broken{0};
  std::thread waiting = Party(barrier, broken);
  Until([&] { return barrier.n_waiting() == 1; });
  EXPECT_TRUE(absl::IsInternal(
      barrier.Arrive(Wait::Forever(), [] { return absl::InternalError("action"); }).status()));
  waiting.join();
  EXPECT_EQ(broken, 1);
  EXPECT_TRUE(barrier.broken());
}

TEST_F(BarrierTest, DeathOfAWaitingPartyBreaksIt) {
  Barrier barrier = NewBarrier(3);
  HostId id;
  auto party = temp_.StartHost([&](HostId self) { As(barrier, self).Arrive(Wait::Forever()).IgnoreError(); }, &id);
  Until([&] { return barrier.n_waiting() == 1; });
  std::atomic<int> broken{0};
  std::thread other = Party(barrier, broken);
  Until([&] { return barrier.n_waiting() == 2; });
  temp_.Bury(id, party->Kill());
  other.join();
  EXPECT_EQ(broken, 1);
  EXPECT_TRUE(barrier.broken());
}

TEST_F(BarrierTest, DeathIsNoticedWithoutAnyRecovery) {
  Barrier barrier = NewBarrier(3);
  HostId id;
  auto party = temp_.StartHost([&](HostId self) { As(barrier, self).Arrive(Wait::Forever()).IgnoreError(); }, &id);
  Until([&] { return barrier.n_waiting() == 1; });
  const auto end = party->Kill();
  EXPECT_TRUE(absl::IsAborted(barrier.Arrive(Wait::Forever()).status()));
  temp_.Bury(id, end);
}

TEST_F(BarrierTest, DeathInTheActionBreaksIt) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
  Barrier barrier = NewBarrier(2);
  std::atomic<int> broken{0};
  std::thread waiting = Party(barrier, broken);
  Until([&] { return barrier.n_waiting() == 1; });
  DieAt("barrier-acting", [&](HostId self) { As(barrier, self).Arrive(Wait::Forever()).IgnoreError(); });
  waiting.join();
  EXPECT_EQ(broken, 1);
  EXPECT_TRUE(barrier.broken());
}

TEST_F(BarrierTest, ReleaseThatADeadOneBeganIsFinished) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
  for (std::string_view point : {"barrier-releasing", "wait-list-told"}) {
    SCOPED_TRACE(point);
    Barrier barrier = NewBarrier(3);
    std::atomic<int> broken{0};
    std::thread first = Party(barrier, broken), second = Party(barrier, broken);
    Until([&] { return barrier.n_waiting() == 2; });
    DieAt(point, [&](HostId self) { As(barrier, self).Arrive(Wait::Forever()).IgnoreError(); });
    first.join();
    second.join();
    EXPECT_EQ(broken, 0);
    EXPECT_FALSE(barrier.broken());
  }
}

TEST_F(BarrierTest, DeathAfterTheReleaseChangesNothing) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
  Barrier barrier = NewBarrier(2);
  HostId id;
  auto party = temp_.StartHost(
      [&](HostId self) {
        testing::KillAtCrashPoint("barrier-heard");
        As(barrier, self).Arrive(Wait::Forever()).IgnoreError();
      },
      &id);
  Until([&] { return barrier.n_waiting() == 1; });
  EXPECT_EQ(*barrier.Arrive(Wait::Forever()), 1u);
  const auto end = party->Reap();
  EXPECT_EQ(end, Killed(SIGKILL));
  temp_.Bury(id, end);
  EXPECT_FALSE(barrier.broken());
}

TEST_F(BarrierTest, AbortThatADeadOneBeganIsFinished) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
  Barrier barrier = NewBarrier(2);
  std::atomic<int> broken{0};
  std::thread waiting = Party(barrier, broken);
  Until([&] { return barrier.n_waiting() == 1; });
  DieAt("barrier-breaking", [&](HostId self) { As(barrier, self).Abort(); });
  waiting.join();
  EXPECT_EQ(broken, 1);
  EXPECT_TRUE(barrier.broken());
}

}  // namespace
}  // namespace pyhost
