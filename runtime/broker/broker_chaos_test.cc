// Pools whose workers and callers are killed at random moments and at random crash points, thousands of times if asked for
// (PYHOST_CHAOS_KILLS; PYHOST_CHAOS_SEED for another schedule).
//
// Checked: nothing hangs; every call has one outcome; at most one call is lost with each worker that was killed; workers
// whose caller is gone end by themselves; in the end nothing is left allocated.

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "runtime/broker/call_client.h"
#include "runtime/broker/call_server.h"
#include "runtime/broker/object_kinds.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/testing/temp_segment.h"

namespace pyhost {
namespace {

using ::pyhost::testing::Child;
using ::pyhost::testing::ChildEnd;
using ::pyhost::testing::Exited;
using ::pyhost::testing::TempSegment;

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* value = getenv(name);
  return value == nullptr ? otherwise : strtoull(value, nullptr, 10);
}

constexpr const char* kPoints[] = {
    "pool-claim-before-hand",  "pool-claim-before-commit", "pool-after-take",         "pool-before-reply",
    "pool-after-reply",        "queue-pop-locked",         "queue-pop-taken",         "queue-pop-before-commit",
    "queue-pop-committed",     "queue-push-locked",        "queue-push-half-written", "queue-push-before-commit",
    "queue-push-committed",     "pool-nap-before-end"};
constexpr uint64_t kCalls = 100;  // of one round

Wait Soon() { return {Deadline::After(absl::Seconds(60)), nullptr}; }

// What a caller that is going to be killed tells the test.
struct Told {
  std::atomic<uint64_t> pool;
  std::atomic<bool> begin;
};

class BrokerChaosTest : public ::testing::Test {
 protected:
  BrokerChaosTest()
      : random_(FromEnvironment("PYHOST_CHAOS_SEED", 1)), kills_(FromEnvironment("PYHOST_CHAOS_KILLS", 120)) {
    RegisterObjectKinds();
    baseline_ = segment_->Usage();
  }
  ~BrokerChaosTest() override {
    EXPECT_EQ(segment_->Usage().objects, baseline_.objects);
    EXPECT_EQ(segment_->Usage().used_bytes, baseline_.used_bytes);
  }

  uint64_t Random(uint64_t below) { return random_() % below; }

  // A worker that serves until the pool ends; every second one is to die at a crash point, if it comes there.
  struct Worker {
    std::unique_ptr<Child> child;
    HostId id;
  };
  Worker StartWorker(Handle pool, bool may_die = true) {
    const char* point = may_die && Random(2) == 0 ? kPoints[Random(std::size(kPoints))] : nullptr;
    const int nth = static_cast<int>(1 + Random(30));
    Worker worker;
    worker.child = segment_.StartHost(
        [&](HostId self) {
          if (point != nullptr && testing::kCrashPointsBuilt) testing::KillAtCrashPoint(point, nth);
          Serve(self, pool);
        },
        &worker.id);
    return worker;
  }
  void Serve(HostId self, Handle pool) {
    auto server = CallServer::Open(*segment_, self, pool);
    ASSERT_TRUE(server.ok()) << server.status();
    for (;;) {
      absl::StatusOr<Message> call = (*server)->Next(Soon());
      if (absl::IsOutOfRange(call.status())) return;
      ASSERT_TRUE(call.ok()) << call.status();
      const absl::StatusOr<CallView> view = ParseCall(call->payload());
      ASSERT_TRUE(view.ok()) << view.status();
      const std::span<const std::byte> answer = view->arguments;
      ASSERT_TRUE((*server)->Reply(ReplyKind::kValue, {&answer, 1}, {}).ok());
    }
  }

  // Submits kCalls calls, some of them large, to one group.
  static void Submit(CallClient& client, const std::shared_ptr<CallGroup>& group, uint64_t first_index) {
    const absl::StatusOr<CallId> first = client.Register(group, kCalls, first_index);
    ASSERT_TRUE(first.ok()) << first.status();
    const CallHeader header{.kind = CallKind::kOne, .flags = 0, .reserved = 0, .limit_millis = 0, .function_size = 0};
    const std::vector<std::byte> argument(20'000);
    for (uint64_t i = 0; i < kCalls; ++i) {
      const std::array parts = {AsBytes(header), std::span(argument).first(i % 16 == 0 ? argument.size() : i)};
      const MessageView call{.parts = parts, .handles = {}, .tag = first->value() + i};
      absl::Status status;
      ASSERT_EQ(client.Push({&call, 1}, Wait::Forever(), &status), 1u) << status;
    }
  }

  TempSegment segment_;
  std::mt19937_64 random_;
  const uint64_t kills_;
  SegmentUsage baseline_;
};

// The outcomes of one group, counted.
class Outcomes {
 public:
  void Take(CallClient& client, CallGroup& group) {
    client.Finished(group);  // Drains what is there.
    for (const Arrival& arrival : client.Take(group, SIZE_MAX)) {
      ASSERT_TRUE(arrival.status.ok()) << arrival.status;
      const absl::StatusOr<ReplyView> reply = ParseReply(arrival.message.payload());
      ASSERT_TRUE(reply.ok()) << reply.status();
      lost_ += reply->kind == ReplyKind::kLost;
      if (arrival.index >= came_.size()) came_.resize(arrival.index + 1);
      ++came_[arrival.index];
    }
  }
  void ExpectOneEach(uint64_t calls) const { EXPECT_EQ(came_, std::vector<int>(calls, 1)); }
  uint64_t lost() const { return lost_; }

 private:
  std::vector<int> came_;  // by index
  uint64_t lost_ = 0;
};

TEST_F(BrokerChaosTest, KilledWorkersLoseNothingButTheCallsInTheirHands) {
  constexpr uint64_t kBacklog = 500;
  auto client = *CallClient::Create(*segment_, segment_.me());
  const std::shared_ptr<CallGroup> group = client->NewGroup();
  Outcomes outcomes;
  uint64_t submitted = 0, killed = 0;
  while (killed < kills_ && !HasFailure()) {
    if (client->queued() < kBacklog) {
      Submit(*client, group, submitted);
      submitted += kCalls;
    }
    std::array workers = {StartWorker(client->handle()), StartWorker(client->handle())};
    for (Worker& worker : workers) {
      absl::SleepFor(absl::Microseconds(Random(1500)));
      const ChildEnd end = worker.child->Kill();
      killed += end.killed;
      segment_.Bury(worker.id, end);
    }
    outcomes.Take(*client, *group);
  }
  client->Close();
  Worker last = StartWorker(client->handle(), /*may_die=*/false);
  EXPECT_TRUE(client->WaitForAll(*group, Soon()).ok());
  const ChildEnd end = last.child->Reap();
  EXPECT_EQ(end, Exited(0));
  segment_.Bury(last.id, end);
  outcomes.Take(*client, *group);
  outcomes.ExpectOneEach(submitted);
  EXPECT_LE(outcomes.lost(), killed);
}

TEST_F(BrokerChaosTest, KilledCallersLeaveNoWorkerAndNoMemory) {
  auto* told = new (mmap(nullptr, sizeof(Told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Told{};
  for (uint64_t round = 0; round < kills_ / 4 && !HasFailure(); ++round) {
    told->pool = 0;
    told->begin = false;
    HostId caller_id;
    std::unique_ptr<Child> caller = segment_.StartHost(
        [&](HostId self) {
          auto client = *CallClient::Create(*segment_, self);
          told->pool = client->handle().value();
          while (!told->begin.load()) absl::SleepFor(absl::Microseconds(20));
          const std::shared_ptr<CallGroup> group = client->NewGroup();
          for (uint64_t index = 0;; index += kCalls) {  // until it is killed
            Submit(*client, group, index);
            ASSERT_TRUE(client->WaitForAll(*group, Soon()).ok());
            client->Take(*group, kCalls);
          }
        },
        &caller_id);
    while (told->pool.load() == 0) absl::SleepFor(absl::Microseconds(20));
    // Held here, hence by the workers from their start, as workers hold what their starter shares with them.
    const Handle pool = Handle::FromValue(told->pool.load());
    ASSERT_TRUE(segment_->refs().Retain(pool, segment_.me()).ok());
    std::array workers = {StartWorker(pool), StartWorker(pool)};
    segment_->refs().Release(pool, segment_.me());
    told->begin = true;
    absl::SleepFor(absl::Microseconds(Random(3000)));
    segment_.Bury(caller_id, caller->Kill());
    for (Worker& worker : workers) {
      const ChildEnd end = worker.child->Reap();
      EXPECT_TRUE(end == Exited(0) || end.killed) << end;
      segment_.Bury(worker.id, end);
    }
  }
  munmap(told, sizeof(Told));
}

}  // namespace
}  // namespace pyhost
