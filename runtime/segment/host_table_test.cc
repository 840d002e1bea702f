#include "runtime/segment/host_table.h"

#include <errno.h>
#include <unistd.h>

#include <atomic>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/testing/temp_segment.h"

namespace pyhost {
namespace {

using testing::Exited;
using testing::Killed;
using testing::KillAtCrashPoint;
using testing::RunInChild;
using testing::TempSegment;
using ::testing::HasSubstr;

constexpr ExitStatus kExited3 = {ExitStatus::Kind::kExited, 3};
constexpr ExitStatus kSegv = {ExitStatus::Kind::kSignaled, SIGSEGV};
constexpr ExitStatus kLost = {ExitStatus::Kind::kLost, 0};
constexpr ExitStatus kBecameProgram = {ExitStatus::Kind::kBecameProgram, 0};

class HostTableTest : public ::testing::Test {
 protected:
  HostState StateOf(HostId id) { return hosts_.Info(id)->state; }
  // Through its whole life, watched by nobody afterwards.
  void LiveAndDie(HostId id) {
    hosts_.SetExit(id, kExited3, true);
    ASSERT_TRUE(hosts_.BeginRecovery(id, segment_.me()));
    hosts_.FinishRecovery(id);
    hosts_.Unwatch(id, segment_.me());
  }

  TempSegment segment_;
  HostTable& hosts_ = segment_.hosts();
};

TEST_F(HostTableTest, EmbryoKnowsItsParentNameFlagsAndPayload) {
  const HostId id = *hosts_.CreateEmbryo({.parent = segment_.me(),
                                          .flags = HostFlag::kDaemon | HostFlag::kWorker,
                                          .name = "Process-2",
                                          .payload = Handle(ObjectKind::kMemory, 1, 2)});
  const HostInfo info = *hosts_.Info(id);
  EXPECT_EQ(info.state, HostState::kEmbryo);
  EXPECT_EQ(info.parent, segment_.me());
  EXPECT_EQ(info.name, "Process-2");
  EXPECT_TRUE(info.has(HostFlag::kDaemon));
  EXPECT_FALSE(info.has(HostFlag::kRoot));
  EXPECT_EQ(hosts_.payload(id), Handle(ObjectKind::kMemory, 1, 2));
  EXPECT_TRUE(hosts_.IsRunning(id));
  EXPECT_FALSE(hosts_.ProcessIsGone(id));
}

TEST_F(HostTableTest, AdoptedByItsProcessOnce) {
  const HostId id = segment_.NewHost();
  ASSERT_TRUE(hosts_.Adopt(id).ok());
  EXPECT_EQ(StateOf(id), HostState::kRunning);
  EXPECT_EQ(hosts_.Info(id)->pid, getpid());
  EXPECT_NE(hosts_.Info(id)->start_time, 0u);
  EXPECT_EQ(hosts_.Adopt(id).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(HostTableTest, DescribesItself) {
  const HostId id = segment_.NewHost("Process-7");
  ASSERT_TRUE(hosts_.Adopt(id).ok());
  EXPECT_EQ(hosts_.Info(id)->Describe(), "host 1 'Process-7' (pid " + std::to_string(getpid()) + ")");
  hosts_.SetName(id, std::string(500, 'x'));
  EXPECT_EQ(hosts_.Info(id)->name, std::string(64, 'x'));
  hosts_.SetRunning(id, "brain:plan");
  EXPECT_EQ(hosts_.Info(id)->running, "brain:plan");
}

TEST_F(HostTableTest, FullTableNamesTheLimitAndFreedSlotsAreReused) {
  std::vector<HostId> all;
  for (;;) {
    absl::StatusOr<HostId> id = hosts_.CreateEmbryo({.parent = segment_.me()});
    if (!id.ok()) {
      EXPECT_EQ(id.status().code(), absl::StatusCode::kResourceExhausted);
      EXPECT_THAT(std::string(id.status().message()), HasSubstr("128"));
      break;
    }
    all.push_back(*id);
  }
  EXPECT_EQ(all.size(), 127u);
  LiveAndDie(all[50]);
  const HostId next = *hosts_.CreateEmbryo({.parent = segment_.me()});
  EXPECT_EQ(next.slot(), all[50].slot());
  EXPECT_NE(next.generation(), all[50].generation());
  EXPECT_FALSE(hosts_.IsRunning(all[50]));
  EXPECT_EQ(hosts_.Exit(all[50]), kLost);
  EXPECT_FALSE(hosts_.Info(all[50]).ok());
}

TEST_F(HostTableTest, IdsOutOfRangeAreNobody) {
  for (const HostId id : {HostId(), HostId(4095, 1), HostId(100, 1), HostId(0, 77)}) {
    EXPECT_FALSE(hosts_.IsRunning(id));
    EXPECT_TRUE(hosts_.ProcessIsGone(id));
    EXPECT_FALSE(hosts_.Info(id).ok());
    EXPECT_FALSE(hosts_.BeginRecovery(id, segment_.me()));
    EXPECT_EQ(hosts_.WaitForExit(id, Wait::Try())->kind, ExitStatus::Kind::kLost);
    hosts_.SetExit(id, kExited3, true);
    hosts_.FinishRecovery(id);
    hosts_.Watch(id, segment_.me());
    hosts_.Unwatch(id, segment_.me());
  }
}

// ---- Exit ----

TEST(ExitStatusTest, SurvivesItsWord) {
  for (const ExitStatus status : {kExited3, kSegv, kLost, ExitStatus{ExitStatus::Kind::kNotStarted, ENOENT}, ExitStatus{},
                                  ExitStatus{ExitStatus::Kind::kExited, 0}, kBecameProgram}) {
    const ExitStatus decoded = ExitStatus::Decode(status.Encode());
    EXPECT_EQ(decoded.kind, status.kind);
    EXPECT_EQ(decoded.value, status.value);
  }
  EXPECT_TRUE(ExitStatus::Decode(0xffffffff).ended());
}

TEST(ExitStatusTest, SpeaksInWords) {
  EXPECT_EQ(kExited3.ToString(), "exited with code 3");
  EXPECT_EQ(kSegv.ToString(), "killed by SIGSEGV");
  EXPECT_EQ(kSegv.ExitCode(), -SIGSEGV);
  EXPECT_THAT((ExitStatus{ExitStatus::Kind::kNotStarted, ENOENT}).ToString(), HasSubstr("No such file"));
  EXPECT_EQ(kLost.ExitCode(), 255);
}

TEST_F(HostTableTest, OwnWordLeavesTheHostRunningAndTheReapersTruthEndsIt) {
  const HostId id = segment_.NewHost();
  ASSERT_TRUE(hosts_.Adopt(id).ok());
  hosts_.SetExit(id, kExited3, false);
  EXPECT_EQ(hosts_.Exit(id), kExited3);
  EXPECT_TRUE(hosts_.IsRunning(id));
  hosts_.SetExit(id, kSegv, true);
  EXPECT_EQ(hosts_.Exit(id), kSegv);
  EXPECT_EQ(StateOf(id), HostState::kEnded);
  EXPECT_TRUE(hosts_.ProcessIsGone(id));
}

TEST_F(HostTableTest, GoneDoesNotOverwriteWhatTheHostSaidItself) {
  const HostId id = segment_.NewHost();
  hosts_.SetExit(id, kExited3, false);
  hosts_.SetExit(id, kLost, true);
  EXPECT_EQ(hosts_.Exit(id), kExited3);
  EXPECT_EQ(StateOf(id), HostState::kEnded);
}

TEST_F(HostTableTest, HostThatBecameAProgramIsRecoveredAndSettledByItsReaper) {
  const HostId id = segment_.NewHost();
  ASSERT_TRUE(hosts_.Adopt(id).ok());
  hosts_.SetExit(id, kBecameProgram, true);
  EXPECT_EQ(StateOf(id), HostState::kEnded);
  EXPECT_TRUE(hosts_.BeginRecovery(id, segment_.me()));
  hosts_.FinishRecovery(id);
  EXPECT_TRUE(absl::IsDeadlineExceeded(hosts_.WaitForExit(id, Wait::Try()).status()));
  hosts_.SetExit(id, kSegv, true);
  EXPECT_EQ(*hosts_.WaitForExit(id, Wait::Forever()), kSegv);
}

TEST_F(HostTableTest, LateNewsOfAnExecDoNotOverwriteTheTruth) {
  const HostId id = segment_.NewHost();
  ASSERT_TRUE(hosts_.Adopt(id).ok());
  hosts_.SetExit(id, kSegv, true);
  hosts_.SetExit(id, kBecameProgram, true);
  EXPECT_EQ(hosts_.Exit(id), kSegv);
}

TEST_F(HostTableTest, WaitersSeeExitAndPid) {
  const HostId id = segment_.NewHost();
  EXPECT_EQ(hosts_.WaitForExit(id, Wait::Try()).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(hosts_.WaitForExit(id, {Deadline::After(absl::Milliseconds(5))}).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  std::thread starter([&] {
    EXPECT_TRUE(hosts_.SetPid(id, getpid()).ok());
    hosts_.SetExit(id, kExited3, true);
  });
  EXPECT_EQ(*hosts_.WaitForPid(id, Wait::Forever()), getpid());
  EXPECT_EQ(*hosts_.WaitForExit(id, Wait::Forever()), kExited3);
  starter.join();
}

TEST_F(HostTableTest, WaiterForAPidLearnsThatTheStartFailed) {
  const HostId id = segment_.NewHost();
  hosts_.SetExit(id, {ExitStatus::Kind::kNotStarted, EAGAIN}, true);
  EXPECT_THAT(std::string(hosts_.WaitForPid(id, Wait::Forever()).status().message()), HasSubstr("not started"));
}

TEST_F(HostTableTest, WaiterInAnotherProcessIsWoken) {
  const HostId id = segment_.NewHost();
  HostId waiter;
  auto child = segment_.StartHost([&](HostId) { EXPECT_EQ(*hosts_.WaitForExit(id, Wait::Forever()), kSegv); }, &waiter);
  hosts_.SetExit(id, kSegv, true);
  EXPECT_EQ(child->Reap(), Exited(0));
}

// ---- Death and recovery ----

TEST_F(HostTableTest, ZombieAndReapedProcessesAreGoneStoppedOnesAreNot) {
  HostId id;
  auto child = segment_.StartHost([&](HostId) { pause(); }, &id);
  ASSERT_TRUE(hosts_.WaitForPid(id, Wait::Forever()).ok());
  child->Signal(SIGSTOP);
  EXPECT_FALSE(hosts_.ProcessIsGone(id));
  child->Signal(SIGKILL);
  while (!hosts_.ProcessIsGone(id)) std::this_thread::yield();  // a zombie now: not reaped yet
  child->Reap();
  EXPECT_TRUE(hosts_.ProcessIsGone(id));
  EXPECT_TRUE(hosts_.IsRunning(id));  // the record does not know yet
}

TEST_F(HostTableTest, OneRecovererOnlyAndOnlyAfterTheEnd) {
  const HostId id = segment_.NewHost();
  const HostId other = segment_.NewHost("other");
  EXPECT_FALSE(hosts_.BeginRecovery(id, segment_.me()));
  hosts_.SetExit(id, kSegv, true);
  EXPECT_TRUE(hosts_.BeginRecovery(id, segment_.me()));
  EXPECT_FALSE(hosts_.BeginRecovery(id, other));
  hosts_.FinishRecovery(id);
  EXPECT_FALSE(hosts_.BeginRecovery(id, other));
}

TEST_F(HostTableTest, DeadRecovererIsReplaced) {
  const HostId id = segment_.NewHost();
  hosts_.SetExit(id, kSegv, true);
  HostId recoverer;
  auto child = segment_.StartHost([&](HostId self) { EXPECT_TRUE(hosts_.BeginRecovery(id, self)); }, &recoverer);
  EXPECT_EQ(child->Reap(), Exited(0));
  EXPECT_TRUE(hosts_.BeginRecovery(id, segment_.me()));
}

TEST_F(HostTableTest, WatchedRecordsAnswerAfterRecovery) {
  const HostId id = segment_.NewHost("Process-9");
  const HostId second = segment_.NewHost("second watcher");
  hosts_.Watch(id, second);
  hosts_.SetExit(id, kSegv, true);
  ASSERT_TRUE(hosts_.BeginRecovery(id, segment_.me()));
  hosts_.FinishRecovery(id);
  hosts_.Unwatch(id, segment_.me());
  EXPECT_EQ(hosts_.Exit(id), kSegv);
  EXPECT_EQ(hosts_.Info(id)->name, "Process-9");
  hosts_.DropWatches(second);  // it died
  EXPECT_EQ(hosts_.Exit(id), kLost);
}

TEST_F(HostTableTest, LateWritersNeverSpoilTheNextLife) {
  // Reaper, supervisor and parent all write about an end; whoever is last may come when the slot is somebody else's.
  std::atomic<uint32_t> ending = 0;
  std::atomic<bool> done = false;
  std::vector<std::thread> late;
  for (int i = 0; i < 3; ++i) {
    late.emplace_back([&] {
      while (!done) {
        const HostId id = HostId::FromValue(ending.load());
        hosts_.SetExit(id, kSegv, true);
        hosts_.Unwatch(id, segment_.me());
      }
    });
  }
  int spoiled = 0;
  for (int i = 0; i < 3000; ++i) {
    const HostId id = *hosts_.CreateEmbryo({.parent = segment_.me()});
    ASSERT_TRUE(hosts_.SetPid(id, getpid()).ok());
    for (int look = 0; look < 20; ++look) spoiled += hosts_.Info(id)->pid != getpid() || hosts_.Exit(id).ended();
    ending = id.value();
    hosts_.SetExit(id, kExited3, true);
    ASSERT_TRUE(hosts_.BeginRecovery(id, segment_.me()));
    hosts_.FinishRecovery(id);
    hosts_.Unwatch(id, segment_.me());
  }
  done = true;
  for (std::thread& thread : late) thread.join();
  EXPECT_EQ(spoiled, 0);
}

TEST_F(HostTableTest, AnEmbryoThatWasNeverFilledCanBeEnded) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "needs crash points";
  const HostId before = segment_.NewHost("before");
  LiveAndDie(before);
  ASSERT_EQ(RunInChild([&] {
              KillAtCrashPoint("host-embryo-claimed");
              hosts_.CreateEmbryo({.parent = segment_.me()}).IgnoreError();
            }),
            Killed(SIGKILL));
  const HostId id = hosts_.List().back().id;
  ASSERT_EQ(id.slot(), before.slot());
  ASSERT_EQ(StateOf(id), HostState::kEmbryo);
  EXPECT_EQ(hosts_.Info(id)->parent, segment_.me());
  EXPECT_EQ(hosts_.Info(id)->pid, 0);
  EXPECT_FALSE(hosts_.Exit(id).ended());
  hosts_.SetExit(id, kLost, true);
  EXPECT_EQ(StateOf(id), HostState::kEnded);
  EXPECT_EQ(hosts_.Exit(id), kLost);
}

TEST_F(HostTableTest, AnEndWhoseWriterDiedIsFinishedByTheNext) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "needs crash points";
  const HostId id = segment_.NewHost();
  ASSERT_TRUE(hosts_.Adopt(id).ok());
  ASSERT_EQ(RunInChild([&] {
              KillAtCrashPoint("host-exit-before-ended");
              hosts_.SetExit(id, kSegv, true);
            }),
            Killed(SIGKILL));
  EXPECT_EQ(StateOf(id), HostState::kRunning);
  EXPECT_FALSE(hosts_.BeginRecovery(id, segment_.me()));
  hosts_.SetExit(id, kLost, true);
  EXPECT_EQ(StateOf(id), HostState::kEnded);
  EXPECT_EQ(hosts_.Exit(id), kSegv) << "what was known stays";
  EXPECT_TRUE(hosts_.BeginRecovery(id, segment_.me()));
}

// Where a death leaves the pid of a process that never became this host, or no longer is.
TEST_F(HostTableTest, AnAdopterThatDiesOnTheWayIsGone) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "needs crash points";
  const HostId id = segment_.NewHost();
  ASSERT_EQ(RunInChild([&] {
              KillAtCrashPoint("host-adopting");
              hosts_.Adopt(id).IgnoreError();
            }),
            Killed(SIGKILL));
  EXPECT_EQ(StateOf(id), HostState::kEmbryo);
  EXPECT_TRUE(hosts_.ProcessIsGone(id));
  LiveAndDie(id);
  EXPECT_FALSE(hosts_.Info(id).ok());
}

TEST_F(HostTableTest, ARecovererThatDiesAtEachStepIsReplaced) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "needs crash points";
  for (const char* point : {"host-recovering", "host-recovery-payload-cleared", "host-recovered"}) {
    SCOPED_TRACE(point);
    const HostId id = segment_.NewHost();
    hosts_.SetExit(id, kSegv, true);
    EXPECT_EQ(segment_.RunHost([&](HostId self) {
      KillAtCrashPoint(point);
      if (hosts_.BeginRecovery(id, self)) hosts_.FinishRecovery(id);
    }),
              Killed(SIGKILL));
    if (hosts_.BeginRecovery(id, segment_.me())) hosts_.FinishRecovery(id);
    EXPECT_EQ(hosts_.Exit(id), kSegv) << "watched, hence readable";
    hosts_.Unwatch(id, segment_.me());
    EXPECT_FALSE(hosts_.Info(id).ok());
  }
}

TEST_F(HostTableTest, ThreadsNeverShareASlot) {
  std::vector<HostId> ids[4];
  std::vector<std::thread> threads;
  for (auto& mine : ids) {
    threads.emplace_back([&] {
      for (int i = 0; i < 30; ++i) mine.push_back(*hosts_.CreateEmbryo({.parent = segment_.me()}));
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<uint32_t> slots;
  for (const auto& mine : ids) {
    for (HostId id : mine) slots.insert(id.slot());
  }
  EXPECT_EQ(slots.size(), 120u);
}

}  // namespace
}  // namespace pyhost
