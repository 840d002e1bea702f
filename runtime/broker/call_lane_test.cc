// Lanes in processes of their own, and what is left when an engine or a worker dies at any step.

#include "runtime/broker/call_lane.h"

#include <signal.h>

#include <array>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "runtime/broker/lane_server.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/testing/child.h"
#include "runtime/testing/temp_segment.h"

namespace pyhost {
namespace {

using ::pyhost::testing::Exited;
using ::pyhost::testing::KillAtCrashPoint;
using ::pyhost::testing::Killed;

constexpr uint32_t kTickets = 16;

Wait Soon() { return {Deadline::After(absl::Seconds(20)), nullptr}; }

std::string Text(std::span<const std::byte> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// An engine's end: a client and two lanes whose replies go to it.
class Engine {
 public:
  Engine(Segment& segment, HostId me)
      : client_(*CallClient::Create(segment, me)),
        preferred_(*CallLane::Create(segment, *client_, kTickets)),
        other_(*CallLane::Create(segment, *client_, kTickets)),
        group_(client_->NewGroup()) {}

  CallLane& preferred() { return *preferred_; }
  CallLane& other() { return *other_; }
  std::array<Handle, 2> handles() const { return {preferred_->handle(), other_->handle()}; }

  CallId Push(CallLane& lane, std::string_view argument) {
    const CallId call = *client_->Register(group_, 1, pushed_++);
    CallHeader header{};
    header.kind = CallKind::kOne;
    const std::array parts = {AsBytes(header), std::as_bytes(std::span(argument))};
    EXPECT_TRUE(lane.Push({.parts = parts, .handles = {}, .tag = call.value()}).ok());
    return call;
  }
  void Settle(CallId call) { client_->Settle(call, absl::CancelledError("")); }
  void Close() {
    preferred_->Close();
    other_->Close();
  }
  // By the order of Push(): the answer, "lost" or "failed".
  std::map<uint64_t, std::string> Outcomes() {
    std::map<uint64_t, std::string> outcomes;
    EXPECT_TRUE(client_->WaitForAll(*group_, Soon()).ok());
    for (Arrival& arrival : client_->Take(*group_, 1000)) {
      std::string outcome = "failed";
      if (arrival.status.ok()) {
        const auto reply = ParseReply(arrival.message.payload());
        outcome = reply->kind == ReplyKind::kLost ? "lost" : Text(reply->outcome);
      }
      EXPECT_TRUE(outcomes.emplace(arrival.index, outcome).second) << "outcome " << arrival.index << " came twice";
    }
    return outcomes;
  }

 private:
  std::unique_ptr<CallClient> client_;
  std::unique_ptr<CallLane> preferred_, other_;
  std::shared_ptr<CallGroup> group_;
  uint64_t pushed_ = 0;
};

class CallLaneTest : public ::testing::Test {
 protected:
  CallLaneTest() {
    RegisterQueueKind();
    RegisterPoolKind();
  }

  // Answers each call with its argument until the lanes end; waits at the second.
  void Serve(HostId self, std::span<const Handle> lanes) {
    auto server = LaneServer::Open(*segment_, self, lanes, 1, false);
    ASSERT_TRUE(server.ok()) << server.status();
    for (;;) {
      auto message = (*server)->Next(Soon());
      if (!message.ok()) {
        EXPECT_EQ(message.status().code(), absl::StatusCode::kOutOfRange) << message.status();
        return;
      }
      const std::span<const std::byte> part = ParseCall(message->payload())->arguments;
      EXPECT_TRUE((*server)->current().Reply(ReplyKind::kValue, {&part, 1}, {}).ok());
    }
  }
  void ServeAll(Engine& engine) {
    engine.Close();
    HostId worker;
    const auto child = segment_.StartHost([&](HostId self) { Serve(self, engine.handles()); }, &worker);
    while (engine.other().Refill(kTickets)) {
    }
    const testing::ChildEnd end = child->Reap();
    EXPECT_EQ(end, Exited(0));
    segment_.Bury(worker, end);
  }

  using Outcomes = std::map<uint64_t, std::string>;
  testing::TempSegment segment_;
};

TEST_F(CallLaneTest, CallsOfEveryLaneAreAnsweredToOneClient) {
  Engine engine(*segment_, segment_.me());
  engine.Push(engine.other(), "b");
  engine.Push(engine.preferred(), "a");
  ServeAll(engine);
  EXPECT_EQ(engine.Outcomes(), (Outcomes{{0, "b"}, {1, "a"}}));
}

TEST_F(CallLaneTest, CallsBeyondTheTicketsAreKeptBackAndFollowInTheirOrder) {
  Engine engine(*segment_, segment_.me());
  Outcomes expected;
  for (uint64_t i = 0; i < 3 * kTickets; ++i) {
    expected[i] = std::to_string(i);
    engine.Push(engine.other(), expected[i]);
  }
  EXPECT_TRUE(engine.other().keeps_back());
  EXPECT_EQ(engine.other().queued(), 3 * kTickets);
  EXPECT_TRUE(engine.other().Refill(kTickets));  // Nobody took any meanwhile.
  ServeAll(engine);
  EXPECT_EQ(engine.Outcomes(), expected);
}

TEST_F(CallLaneTest, EveryCallThatWaitsCanBeCancelled) {
  Engine engine(*segment_, segment_.me());
  Outcomes expected;
  std::vector<CallId> calls;
  for (uint64_t i = 0; i < 3 * kTickets; ++i) calls.push_back(engine.Push(engine.other(), "x"));
  for (uint64_t i = 0; i < 3 * kTickets; ++i) {
    expected[i] = "failed";
    EXPECT_TRUE(engine.other().Cancel(calls[i])) << i;
    EXPECT_FALSE(engine.other().Cancel(calls[i])) << i;
    engine.Settle(calls[i]);
  }
  EXPECT_FALSE(engine.other().keeps_back());
  ServeAll(engine);
  EXPECT_EQ(engine.Outcomes(), expected);
}

class CallLaneCrashTest : public CallLaneTest {
 protected:
  void SetUp() override {
    if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
  }
};

TEST_F(CallLaneCrashTest, EngineThatDiesAnywhereLeavesNothingBehind) {
  const SegmentUsage before = segment_->Usage();
  for (const char* point : {"lane-pool-created", "lane-queue-held", "lane-ticket-issued", "lane-pushed", "lane-cancelled",
                            "lane-terminated", "lane-queue-released"}) {
    for (int nth : {1, 2}) {
      SCOPED_TRACE(std::string(point) + " " + std::to_string(nth));
      EXPECT_EQ(segment_.RunHost([&](HostId self) {
                  KillAtCrashPoint(point, nth);
                  Engine engine(*segment_, self);
                  for (CallLane* lane : {&engine.preferred(), &engine.other()}) {
                    engine.Settle(engine.Push(*lane, "a"));
                    const CallId cancelled = engine.Push(*lane, std::string(100'000, 'b'));
                    EXPECT_TRUE(lane->Cancel(cancelled));
                    engine.Settle(cancelled);
                  }
                }),
                Killed(SIGKILL));
      EXPECT_EQ(segment_->Usage().objects, before.objects);
      EXPECT_EQ(segment_->Usage().used_bytes, before.used_bytes);
    }
  }
}

TEST_F(CallLaneCrashTest, TicketOfACallThatDiedOnItsWayIsFreeAgain) {
  Engine engine(*segment_, segment_.me());
  engine.Push(engine.other(), "0");
  EXPECT_EQ(segment_.RunHost([&](HostId self) {
              KillAtCrashPoint("pool-after-take", 1);
              Serve(self, engine.handles());
            }),
            Killed(SIGKILL));
  Outcomes expected = {{0, "lost"}};
  for (uint64_t i = 1; i <= kTickets; ++i) {  // The last one is to have the ticket of the first.
    expected[i] = std::to_string(i);
    engine.Push(engine.other(), expected[i]);
  }
  EXPECT_TRUE(engine.other().keeps_back());
  ServeAll(engine);
  EXPECT_EQ(engine.Outcomes(), expected);
}

TEST_F(CallLaneCrashTest, CallThatADeadWorkerTookIsLostAndThoseOfAllLanesGoOn) {
  Engine engine(*segment_, segment_.me());
  engine.Push(engine.preferred(), "a");
  engine.Push(engine.preferred(), "b");
  engine.Push(engine.other(), "c");
  engine.Push(engine.other(), "d");
  for (int taken = 1; taken <= 2; ++taken) {  // of the first lane, then, after its second call, of the other
    EXPECT_EQ(segment_.RunHost([&](HostId self) {
                KillAtCrashPoint("lane-server-taken", taken);
                Serve(self, engine.handles());
              }),
              Killed(SIGKILL));
  }
  ServeAll(engine);
  EXPECT_EQ(engine.Outcomes(), (Outcomes{{0, "lost"}, {1, "b"}, {2, "lost"}, {3, "d"}}));
}

}  // namespace
}  // namespace pyhost
