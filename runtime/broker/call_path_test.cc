// Caller and workers of a pool, in processes of their own, and what is left when one of them dies.

#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "runtime/broker/call_client.h"
#include "runtime/broker/call_server.h"
#include "runtime/queue/queue.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/testing/child.h"
#include "runtime/testing/temp_segment.h"

namespace pyhost {
namespace {

using ::pyhost::testing::Child;
using ::pyhost::testing::ChildEnd;
using ::pyhost::testing::Exited;
using ::pyhost::testing::KillAtCrashPoint;
using ::pyhost::testing::Killed;

std::span<const std::byte> Bytes(std::string_view text) { return std::as_bytes(std::span(text)); }
std::string Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Wait Soon() { return {Deadline::After(absl::Seconds(20)), nullptr}; }

class CallPathTest : public ::testing::Test {
 protected:
  CallPathTest() {
    RegisterQueueKind();
    RegisterPoolKind();
    auto client = CallClient::Create(*segment_, segment_.me());
    EXPECT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    group_ = client_->NewGroup();
  }

  // Instead of the fixture's pool, one whose calls can be cancelled.
  void MakeCancellable(uint32_t count) {
    auto client = CallClient::Create(*segment_, segment_.me(), count);
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    group_ = client_->NewGroup();
  }

  // Submits calls with these arguments; outcomes 0, 1, ... of group_.
  void Submit(const std::vector<std::string>& arguments) {
    const auto first = client_->Register(group_, arguments.size(), submitted_);
    ASSERT_TRUE(first.ok()) << first.status();
    for (size_t i = 0; i < arguments.size(); ++i) {
      CallHeader header{};
      header.kind = CallKind::kOne;
      const std::array parts = {AsBytes(header), Bytes(arguments[i])};
      const MessageView call{.parts = parts, .handles = {}, .tag = first->value() + i};
      absl::Status status;
      ASSERT_EQ(client_->Push({&call, 1}, Wait::Forever(), &status), 1u) << status;
    }
    submitted_ += arguments.size();
  }

  // What a worker does: answers "x" with "<x>" until the pool ends; returns how many.
  static int Serve(Segment& segment, HostId self, Handle pool, int max_calls = 1 << 30) {
    auto server = CallServer::Open(segment, self, pool);
    EXPECT_TRUE(server.ok()) << server.status();
    int served = 0;
    while (served < max_calls) {
      auto message = (*server)->Next(Soon());
      if (!message.ok()) {
        EXPECT_EQ(message.status().code(), absl::StatusCode::kOutOfRange) << message.status();
        break;
      }
      const auto call = ParseCall(message->payload());
      EXPECT_TRUE(call.ok()) << call.status();
      const std::string answer = absl::StrCat("<", Text(call->arguments), ">");
      const std::span<const std::byte> part = Bytes(answer);
      EXPECT_TRUE((*server)->Reply(ReplyKind::kValue, {&part, 1}, {}).ok());
      ++served;
    }
    return served;
  }

  // A worker that dies at a crash point, at its nth arrival there; buried.
  void KillWorkerAt(std::string_view point, int nth = 1) {
    const ChildEnd end = segment_.RunHost([&](HostId self) {
      KillAtCrashPoint(point, nth);
      Serve(*segment_, self, client_->handle());
    });
    ASSERT_EQ(end, Killed(SIGKILL));
  }

  // Runs a healthy worker until everything outstanding has arrived.
  void ServeTheRest() {
    client_->Close();
    EXPECT_EQ(segment_.RunHost([&](HostId self) { Serve(*segment_, self, client_->handle()); }), Exited(0));
  }

  // index -> "<x>", or "lost". Every outcome exactly once.
  std::map<uint64_t, std::string> Collect() {
    std::map<uint64_t, std::string> outcomes;
    EXPECT_TRUE(client_->WaitForAll(*group_, Soon()).ok());
    for (Arrival& arrival : client_->Take(*group_, 1000000)) {
      std::string outcome = "failed";
      if (arrival.status.ok()) {
        const auto reply = ParseReply(arrival.message.payload());
        EXPECT_TRUE(reply.ok()) << reply.status();
        outcome = reply->kind == ReplyKind::kLost ? "lost" : Text(reply->outcome);
      }
      EXPECT_TRUE(outcomes.emplace(arrival.index, outcome).second) << "outcome " << arrival.index << " came twice";
    }
    return outcomes;
  }

  using Outcomes = std::map<uint64_t, std::string>;

  testing::TempSegment segment_;
  std::unique_ptr<CallClient> client_;
  std::shared_ptr<CallGroup> group_;
  uint64_t submitted_ = 0;
};

TEST_F(CallPathTest, NoCallsAreNothingToWaitFor) {
  EXPECT_TRUE(client_->Register(group_, 0, 0).ok());
  EXPECT_TRUE(client_->WaitForAll(*group_, Wait::Try()).ok());
  client_->Terminate(absl::CancelledError("the end"));
  EXPECT_TRUE(client_->Take(*group_, 1).empty());
}

TEST_F(CallPathTest, EveryCallGetsItsReply) {
  Submit({"a", "b", "c"});
  ServeTheRest();
  EXPECT_EQ(Collect(), (Outcomes{{0, "<a>"}, {1, "<b>"}, {2, "<c>"}}));
  EXPECT_EQ(client_->outstanding(), 0u);
}

TEST_F(CallPathTest, LargeCallsAndRepliesTravelInMemoryObjects) {
  const std::string large(300000, 'x');
  Submit({large});
  ServeTheRest();
  EXPECT_EQ(Collect(), (Outcomes{{0, "<" + large + ">"}}));
}

TEST_F(CallPathTest, ClosedPoolIsDrainedBeforeItsWorkersEnd) {
  Submit({"a", "b"});
  client_->Close();
  EXPECT_EQ(segment_.RunHost([&](HostId self) { EXPECT_EQ(Serve(*segment_, self, client_->handle()), 2); }), Exited(0));
  EXPECT_EQ(client_->Register(group_, 1, 9).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(CallPathTest, TerminatedPoolIsNotDrained) {
  Submit({"a", "b"});
  client_->Terminate(absl::UnavailableError("enough"));
  EXPECT_EQ(segment_.RunHost([&](HostId self) { EXPECT_EQ(Serve(*segment_, self, client_->handle()), 0); }), Exited(0));
  EXPECT_EQ(Collect(), (Outcomes{{0, "failed"}, {1, "failed"}}));
}

TEST_F(CallPathTest, WithdrawnCallArrivesWithoutBeingRun) {
  const auto id = client_->Register(group_, 1, 0);
  ASSERT_TRUE(id.ok());
  client_->Withdraw(*id, 1);
  EXPECT_EQ(Collect(), (Outcomes{{0, "failed"}}));
}

TEST_F(CallPathTest, WorkersEndWhenTheirCallerIsGone) {
  HostId caller_id, worker_id;
  std::unique_ptr<Child> caller = segment_.StartHost(
      [&](HostId self) {
        auto client = CallClient::Create(*segment_, self);
        ASSERT_TRUE(client.ok()) << client.status();
        // Tells the test which pool it made, through the pool of the test itself.
        auto server = CallServer::Open(*segment_, self, client_->handle());
        ASSERT_TRUE(server.ok());
        ASSERT_TRUE((*server)->Next(Soon()).ok());
        const uint64_t handle = (*client)->handle().value();
        const std::span<const std::byte> part = AsBytes(handle);
        ASSERT_TRUE((*server)->Reply(ReplyKind::kValue, {&part, 1}, {}).ok());
        absl::SleepFor(absl::Seconds(60));  // until it is killed
      },
      &caller_id);
  Submit({"which pool?"});
  ASSERT_TRUE(client_->WaitForAll(*group_, Soon()).ok());
  const std::vector<Arrival> arrivals = client_->Take(*group_, 1);
  uint64_t handle = 0;
  std::memcpy(&handle, ParseReply(arrivals.at(0).message.payload())->outcome.data(), sizeof(handle));
  // Held here, hence by the worker from its start, as a started worker holds what its starter shares with it.
  const Handle pool = Handle::FromValue(handle);
  ASSERT_TRUE(segment_->refs().Retain(pool, segment_.me()).ok());
  std::unique_ptr<Child> worker =
      segment_.StartHost([&](HostId self) { EXPECT_EQ(Serve(*segment_, self, pool), 0); }, &worker_id);
  segment_.Bury(caller_id, caller->Kill());
  const ChildEnd end = worker->Reap();
  EXPECT_EQ(end, Exited(0));
  segment_.Bury(worker_id, end);
  segment_->refs().Release(pool, segment_.me());
}

// ---- A worker dies -------------------------------------------------------------------------------------------

class CallPathCrashTest : public CallPathTest {
 protected:
  void SetUp() override {
    if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
  }
};

TEST_F(CallPathCrashTest, CallInTheHandsOfADeadWorkerIsLost) {
  Submit({"a", "b", "c"});
  KillWorkerAt("pool-after-take");
  ServeTheRest();
  EXPECT_EQ(Collect(), (Outcomes{{0, "lost"}, {1, "<b>"}, {2, "<c>"}}));
}

TEST_F(CallPathCrashTest, RecovererThatDiesAfterItReportedACallReportsItOnce) {
  Submit({"a", "b"});
  HostId dead;
  auto worker = segment_.StartHost(
      [&](HostId self) {
        KillAtCrashPoint("pool-after-take");
        Serve(*segment_, self, client_->handle());
      },
      &dead);
  const ChildEnd end = worker->Reap();
  segment_.hosts().SetExit(dead, {ExitStatus::Kind::kSignaled, end.value}, true);
  EXPECT_EQ(segment_.RunHost([&](HostId self) {
    KillAtCrashPoint("pool-recover-after-lost");
    if (segment_.hosts().BeginRecovery(dead, self)) segment_.objects().Recover(dead, self);
  }),
            Killed(SIGKILL));
  segment_.Bury(dead, end);
  EXPECT_EQ(client_->CountUnanswered(), 1u) << "the second report of the same loss answers no other call";
  ServeTheRest();
  EXPECT_EQ(Collect(), (Outcomes{{0, "lost"}, {1, "<b>"}}));
}

TEST_F(CallPathCrashTest, LostCallNamesItsWorkerAndItsEnd) {
  Submit({"a"});
  HostId id;
  auto worker = segment_.StartHost(
      [&](HostId self) {
        KillAtCrashPoint("pool-before-reply");
        Serve(*segment_, self, client_->handle());
      },
      &id);
  segment_.Bury(id, worker->Reap());
  ASSERT_TRUE(client_->WaitForAll(*group_, Soon()).ok());
  const std::vector<Arrival> arrivals = client_->Take(*group_, 1);
  const auto reply = ParseReply(arrivals.at(0).message.payload());
  ASSERT_EQ(reply->kind, ReplyKind::kLost);
  LostWorker lost;
  std::memcpy(&lost, reply->outcome.data(), sizeof(lost));
  EXPECT_EQ(lost.host, id.value());
  EXPECT_EQ(ExitStatus::Decode(lost.exit).ToString(), "killed by SIGKILL");
}

TEST_F(CallPathCrashTest, ClaimThatWasNotCommittedDidNotHappen) {
  for (const char* point : {"pool-claim-before-hand", "pool-claim-before-commit"}) {
    Submit({"a", "b"});
    KillWorkerAt(point);
  }
  ServeTheRest();
  EXPECT_EQ(Collect(), (Outcomes{{0, "<a>"}, {1, "<b>"}, {2, "<a>"}, {3, "<b>"}}));
}

TEST_F(CallPathCrashTest, NextClaimerVoidsAClaimThatWasNotCommitted) {
  Submit({"a", "b"});
  HostId dead;
  auto worker = segment_.StartHost(
      [&](HostId self) {
        KillAtCrashPoint("pool-claim-before-commit");
        Serve(*segment_, self, client_->handle());
      },
      &dead);
  const ChildEnd end = worker->Reap();
  ASSERT_EQ(end, Killed(SIGKILL));
  // Another takes over the lock and the call before anybody recovers the dead one.
  EXPECT_EQ(segment_.RunHost([&](HostId self) { EXPECT_EQ(Serve(*segment_, self, client_->handle(), 2), 2); }),
            Exited(0));
  segment_.Bury(dead, end);
  EXPECT_EQ(Collect(), (Outcomes{{0, "<a>"}, {1, "<b>"}}));
}

TEST_F(CallPathCrashTest, ReplyThatWasPushedCountsAlthoughItsWorkerDied) {
  Submit({"a", "b"});
  KillWorkerAt("pool-after-reply");
  ServeTheRest();
  EXPECT_EQ(Collect(), (Outcomes{{0, "<a>"}, {1, "<b>"}}));
}

TEST_F(CallPathCrashTest, DeathInsideTheQueuesLosesAtMostTheCallInHand) {
  // Wherever in pop and push the worker dies, every call has one outcome, and others can go on.
  for (const char* point : {"queue-pop-locked", "queue-pop-taken", "queue-pop-before-commit", "queue-pop-committed",
                            "queue-push-locked", "queue-push-half-written", "queue-push-before-commit",
                            "queue-push-committed"}) {
    SCOPED_TRACE(point);
    Submit({"a"});
    const ChildEnd end = segment_.RunHost([&](HostId self) {
      KillAtCrashPoint(point);
      Serve(*segment_, self, client_->handle(), 1);
    });
    EXPECT_TRUE(end == Killed(SIGKILL) || end == Exited(0));
  }
  ServeTheRest();
  for (const auto& [index, outcome] : Collect()) EXPECT_TRUE(outcome == "<a>" || outcome == "lost") << index << outcome;
}

// ---- Threads of the caller -----------------------------------------------------------------------------------

TEST_F(CallPathTest, ThreadsShareTheReplyQueue) {
  constexpr int kThreads = 4;
  constexpr int kCallsEach = 500;
  HostId id;
  auto worker = segment_.StartHost([&](HostId self) { Serve(*segment_, self, client_->handle()); }, &id);
  std::atomic<int> right{0};
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < kCallsEach; ++i) {
          const std::string argument = std::to_string(t * kCallsEach + i);
          auto group = client_->NewGroup();
          const auto call_id = client_->Register(group, 1, 0);
          CallHeader header{};
          header.kind = CallKind::kOne;
          const std::array parts = {AsBytes(header), Bytes(argument)};
          const MessageView call{.parts = parts, .handles = {}, .tag = call_id->value()};
          absl::Status status;
          client_->Push({&call, 1}, Wait::Forever(), &status);
          if (!client_->WaitForArrival(*group, Soon()).ok()) return;
          const std::vector<Arrival> arrivals = client_->Take(*group, 1);
          right += arrivals.size() == 1 &&
                   Text(ParseReply(arrivals[0].message.payload())->outcome) == "<" + argument + ">";
        }
      });
    }
  }
  EXPECT_EQ(right, kThreads * kCallsEach);
  client_->Close();
  segment_.Bury(id, worker->Reap());
}

TEST_F(CallPathTest, EndOfAnOpenGroupWakesTheThreadThatWaitsForIt) {
  auto open = client_->NewGroup(false, true);
  std::jthread waiter([&] { EXPECT_TRUE(client_->WaitForArrival(*open, Soon()).ok()); });
  absl::SleepFor(absl::Milliseconds(20));  // Most probably asleep by then; right either way.
  client_->CloseGroup(open);
}

TEST_F(CallPathTest, FinishedGroupsAreNamedOnce) {
  auto notified = client_->NewGroup(true);
  const auto id = client_->Register(notified, 2, 0);
  client_->Withdraw(*id, 2);
  const auto finished = client_->WaitForFinished(Soon());
  ASSERT_TRUE(finished.ok()) << finished.status();
  EXPECT_EQ(*finished, std::vector{notified});
  client_->StopWaiting();
  EXPECT_EQ(client_->WaitForFinished(Soon()).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(CallPathTest, OutcomesOfAnAbandonedGroupAreDropped) {
  Submit({"a", "b"});
  client_->Abandon(*group_);
  ServeTheRest();
  EXPECT_TRUE(client_->WaitForAll(*group_, Soon()).ok());
  EXPECT_TRUE(client_->Take(*group_, 10).empty());
}

TEST_F(CallPathTest, CancelledCallIsPassedOver) {
  MakeCancellable(16);
  Submit({"a", "b", "c"});
  EXPECT_TRUE(client_->Cancel(CallId::FromValue(2)));
  EXPECT_FALSE(client_->Cancel(CallId::FromValue(2)));
  EXPECT_EQ(client_->CountUnanswered(), 2u);
  ServeTheRest();
  EXPECT_EQ(Collect(), (Outcomes{{0, "<a>"}, {2, "<c>"}}));
}

TEST_F(CallPathTest, AnsweredCallIsNothingForTheWorkersToDo) {
  Submit({"a", "b", "c"});
  EXPECT_EQ(client_->CountUnanswered(), 3u);
  EXPECT_EQ(segment_.RunHost([&](HostId self) { Serve(*segment_, self, client_->handle(), 2); }), Exited(0));
  EXPECT_EQ(client_->CountUnanswered(), 1u) << "two have replies, though nobody has waited for them";
  EXPECT_EQ(client_->CountUnanswered(*group_), 1u);
  client_->CancelQueued();
  EXPECT_EQ(client_->CountUnanswered(), 0u);
}

TEST_F(CallPathTest, WakeUpsOfTheLeaderAreNoAnswers) {
  Submit({"a", "b"});
  auto open = client_->NewGroup(false, true);
  std::jthread leader([&] { EXPECT_TRUE(client_->WaitForArrival(*open, Soon()).ok()); });
  for (int i = 0; i < 100; ++i) client_->Withdraw(CallId::FromValue(1000), 1);  // Wakes who leads; ends no call.
  EXPECT_EQ(client_->CountUnanswered(), 2u);
  client_->CloseGroup(open);
}

TEST_F(CallPathTest, CallThatWasTakenCannotBeCancelled) {
  MakeCancellable(16);
  Submit({"a"});
  EXPECT_FALSE(client_->Taken(CallId::FromValue(1)));
  auto server = CallServer::Open(*segment_, segment_.me(), client_->handle());
  ASSERT_TRUE(server.ok()) << server.status();
  ASSERT_TRUE((*server)->Next(Soon()).ok());
  EXPECT_TRUE(client_->Taken(CallId::FromValue(1)));
  EXPECT_FALSE(client_->Cancel(CallId::FromValue(1)));
  EXPECT_TRUE((*server)->Reply(ReplyKind::kValue, {}, {}).ok());
  EXPECT_TRUE(client_->WaitForAll(*group_, Soon()).ok());
}

TEST_F(CallPathTest, NewestCallsHaveTheTickets) {
  MakeCancellable(2);
  Submit({"a", "b", "c"});
  EXPECT_FALSE(client_->Cancel(CallId::FromValue(1)));
  EXPECT_TRUE(client_->Cancel(CallId::FromValue(3)));
  Submit({"d", "e"});  // "e" would have the ticket of "c", which no worker has seen yet
  EXPECT_FALSE(client_->Cancel(CallId::FromValue(5)));
  EXPECT_TRUE(client_->Cancel(CallId::FromValue(4)));
  client_->CancelQueued();  // "a", "b" and "e" are left in it
  EXPECT_EQ(Collect(), (Outcomes{{0, "failed"}, {1, "failed"}, {4, "failed"}}));
  EXPECT_EQ(client_->queued(), 0u);
}

TEST_F(CallPathTest, CondemnedCallIsNotAnswered) {
  Submit({"a"});
  auto server = CallServer::Open(*segment_, segment_.me(), client_->handle());
  ASSERT_TRUE(server.ok()) << server.status();
  const CallId call = CallId::FromValue(1);
  EXPECT_FALSE(client_->Condemn(segment_.me(), call)) << "nobody has taken it";
  ASSERT_TRUE((*server)->Next(Soon()).ok());
  EXPECT_EQ(client_->WorkerOf(call), segment_.me());
  EXPECT_FALSE(client_->Conclude(call, absl::CancelledError("not yet"), "")) << "it is not condemned";
  EXPECT_TRUE(client_->Condemn(segment_.me(), call));
  EXPECT_FALSE(client_->Condemn(segment_.me(), call)) << "once is enough";
  EXPECT_TRUE(absl::IsAborted((*server)->Reply(ReplyKind::kValue, {}, {})));
  EXPECT_FALSE(client_->Finished(*group_));
  EXPECT_TRUE(client_->Conclude(call, absl::DeadlineExceededError("too long"), "why"));
  const std::vector<Arrival> arrivals = client_->Take(*group_, 2);
  ASSERT_EQ(arrivals.size(), 1u);
  EXPECT_TRUE(absl::IsDeadlineExceeded(arrivals[0].status));
  EXPECT_EQ(arrivals[0].verdict, "why");
}

TEST_F(CallPathTest, CallThatIsBeingAnsweredCannotBeCondemned) {
  Submit({"a", "b"});
  auto server = CallServer::Open(*segment_, segment_.me(), client_->handle());
  ASSERT_TRUE(server.ok()) << server.status();
  ASSERT_TRUE((*server)->Next(Soon()).ok());
  ASSERT_TRUE((*server)->Reply(ReplyKind::kValue, {}, {}).ok());
  ASSERT_TRUE((*server)->Next(Soon()).ok());
  EXPECT_FALSE(client_->Condemn(segment_.me(), CallId::FromValue(1)));
  EXPECT_TRUE((*server)->Reply(ReplyKind::kValue, {}, {}).ok());
  EXPECT_TRUE(client_->Finished(*group_));
}

TEST_F(CallPathTest, LimitCountsFromTheFunctionsBegin) {
  Submit({"a"});
  auto server = CallServer::Open(*segment_, segment_.me(), client_->handle());
  ASSERT_TRUE(server.ok()) << server.status();
  ASSERT_TRUE((*server)->Next(Soon()).ok());
  EXPECT_EQ(client_->FindOverdue().next, absl::InfiniteDuration());
  (*server)->Begin(3'600'000);
  EXPECT_TRUE(client_->FindOverdue().calls.empty());
  EXPECT_GT(client_->FindOverdue().next, absl::Minutes(59));
  (*server)->Begin(1);
  const absl::Time begin = absl::Now();
  while (client_->FindOverdue().calls.empty() && absl::Now() - begin < absl::Seconds(20)) std::this_thread::yield();
  const Overdue overdue = client_->FindOverdue();
  ASSERT_EQ(overdue.calls.size(), 1u);
  EXPECT_EQ(overdue.calls[0].call, CallId::FromValue(1));
  (*server)->End();
  EXPECT_TRUE(client_->FindOverdue().calls.empty());
}

TEST_F(CallPathTest, KeptCallIsRunAgainAsOftenAsItMay) {
  const auto first = client_->Register(group_, 1, 0);
  ASSERT_TRUE(first.ok());
  CallHeader header{};
  header.kind = CallKind::kOne;
  const std::array parts = {AsBytes(header), Bytes("a")};
  const MessageView call{.parts = parts, .handles = {}, .tag = first->value()};
  client_->Keep(*first, call, 2);
  absl::Status status;
  ASSERT_EQ(client_->Push({&call, 1}, Wait::Forever(), &status), 1u) << status;
  for (int attempt = 1; attempt <= 2; ++attempt) {
    EXPECT_EQ(segment_.RunHost([&](HostId self) {
                auto server = CallServer::Open(*segment_, self, client_->handle());
                EXPECT_TRUE((*server)->Next(Soon()).ok());
                kill(getpid(), SIGKILL);
              }),
              Killed(SIGKILL));
    EXPECT_EQ(client_->CountUnanswered(), attempt == 2 ? 0u : 1u);
    EXPECT_EQ(client_->Finished(*group_), attempt == 2);
  }
  EXPECT_EQ(Collect(), (Outcomes{{0, "lost"}}));
}

TEST_F(CallPathTest, GroupThatAsksForItLaterIsNamedToo) {
  Submit({"a"});
  client_->CancelQueued();
  client_->Notify(group_);  // finished by now
  const auto finished = client_->WaitForFinished(Soon());
  ASSERT_TRUE(finished.ok()) << finished.status();
  EXPECT_EQ(finished->size(), 1u);
}

TEST_F(CallPathTest, PoolAndQueuesGoWithTheirLastHolder) {
  int before = 0, after = 0;
  segment_.objects().ForEach([&](Handle, const ObjectCell&) { ++before; });
  {
    auto other = CallClient::Create(*segment_, segment_.me());
    ASSERT_TRUE(other.ok());
  }
  segment_.objects().ForEach([&](Handle, const ObjectCell&) { ++after; });
  EXPECT_EQ(before, after);
}

}  // namespace
}  // namespace pyhost
