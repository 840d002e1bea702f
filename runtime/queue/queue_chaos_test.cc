// Producers and consumers as processes, killed at random moments, thousands of times if asked for.
//
// Checked: nothing hangs; each producer's messages come out in order; no message comes out twice; none is lost
// but those in a dead consumer's hands or a dead producer's; in the end nothing is left allocated.
//
// Reproducible as far as the machine allows: PYHOST_CHAOS_SEED chooses the schedule of kills, PYHOST_CHAOS_KILLS
// how many there are.

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "runtime/queue/queue_test_util.h"
#include "runtime/testing/temp_segment.h"

namespace pyhost {
namespace {

using ::pyhost::testing::Child;

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* value = getenv(name);
  return value == nullptr ? otherwise : strtoull(value, nullptr, 10);
}

constexpr int kLives = 64 * 1024;    // of producers
constexpr int kMaxSerials = 1 << 16;  // messages of one life
constexpr int kConsumers = 2, kProducers = 2;
constexpr uint64_t kBacklog = 500;    // producers of an unbounded queue leave it at that

// What the processes write down outside of the segment; survives them all.
struct Ledger {
  struct Life {
    std::atomic<uint32_t> confirmed;  // pushes that returned
    std::atomic<uint32_t> highest;    // serial of the last message that came out, plus 1
    std::atomic<uint32_t> received;
  };
  std::atomic<uint32_t> errors;
  Life lives[kLives];
};

class QueueChaosTest : public QueueFixture {
 protected:
  QueueChaosTest() {
    ledger_ = static_cast<Ledger*>(mmap(nullptr, sizeof(Ledger), PROT_READ | PROT_WRITE,
                                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  }
  ~QueueChaosTest() override { munmap(ledger_, sizeof(Ledger)); }

  void Complain(const char* what, uint64_t tag) {
    fprintf(stderr, "%s: life %u, message %u\n", what, static_cast<uint32_t>(tag >> 32), static_cast<uint32_t>(tag));
    ledger_->errors.fetch_add(1);
  }

  // Pushes messages of all sizes, some with a buffer object, until killed or told to stop.
  void Produce(HostId self, Handle handle, uint32_t life) {
    Queue queue = *Queue::Open(segment(), self, handle);
    std::mt19937 random(life);
    for (uint32_t serial = 0; serial < kMaxSerials; ++serial) {
      while (queue.depth() > kBacklog && !queue.closed()) absl::SleepFor(absl::Microseconds(50));
      const uint32_t dice = random() % 64;
      const std::string text = Pattern(dice == 0 ? 40'000 : dice < 8 ? 3'000 : random() % 200, serial);
      const std::array parts = {Bytes(text)};
      MessageView message{.parts = parts, .handles = {}, .tag = uint64_t{life} << 32 | serial};
      std::array<Handle, 1> handles;
      if (dice % 16 == 1) {
        absl::StatusOr<Handle> buffer = segment().objects().Create(ObjectKind::kMemory, 100, self);
        if (!buffer.ok()) return Complain("no buffer", message.tag);
        segment().refs().Adopt(*buffer, self);
        handles[0] = *buffer;
        message.handles = handles;
      }
      const absl::Status pushed = queue.Push(message, Wait::Forever());
      if (!message.handles.empty()) segment().refs().Release(handles[0], self);
      if (absl::IsFailedPrecondition(pushed)) return;  // closed: the end
      if (!pushed.ok()) {
        fprintf(stderr, "%s\n", pushed.ToString().c_str());
        return Complain("push failed", message.tag);
      }
      ledger_->lives[life].confirmed.store(serial + 1);
    }
  }

  void Consume(HostId self, Handle handle) {
    Queue queue = *Queue::Open(segment(), self, handle);
    for (;;) {
      absl::StatusOr<Message> message = queue.Pop(Wait::Forever());
      if (absl::IsOutOfRange(message.status())) return;
      if (!message.ok()) {
        fprintf(stderr, "%s\n", message.status().ToString().c_str());
        return Complain("pop failed", 0);
      }
      Check(*message);
    }
  }
  void Check(const Message& message) {
    const uint32_t serial = static_cast<uint32_t>(message.tag());
    Ledger::Life& life = ledger_->lives[message.tag() >> 32];
    const size_t size = message.payload().size();
    if (Text(message) != Pattern(size, serial)) Complain("damaged", message.tag());
    life.received.fetch_add(1);
    uint32_t highest = life.highest.load();
    while (highest < serial + 1 && !life.highest.compare_exchange_weak(highest, serial + 1)) {
    }
  }

  Ledger* ledger_;
};

struct Role {
  std::unique_ptr<Child> child;
  HostId id;
};

TEST_F(QueueChaosTest, RandomKillsLoseNothingButWhatTheDeadHeld) {
  const uint64_t seed = FromEnvironment("PYHOST_CHAOS_SEED", 1);
  const uint64_t kills = FromEnvironment("PYHOST_CHAOS_KILLS", 300);
  RecordProperty("seed", std::to_string(seed));
  std::mt19937_64 random(seed);
  const SegmentUsage baseline = segment().Usage();
  for (uint64_t bound : {0, 20}) {
    Queue queue = NewQueue(bound);
    std::array<Role, kProducers + kConsumers> roles;
    uint32_t lives = 0, consumers_killed = 0;
    const auto start = [&](size_t role) {
      const uint32_t life = lives;
      if (role < kProducers) ++lives;
      roles[role].child = temp_.StartHost(
          [&, role, life](HostId self) {
            role < kProducers ? Produce(self, queue.handle(), life) : Consume(self, queue.handle());
          },
          &roles[role].id);
    };
    for (size_t role = 0; role < roles.size(); ++role) start(role);
    for (uint64_t kill = 0; kill < kills / 2 && ledger_->errors.load() == 0; ++kill) {
      absl::SleepFor(absl::Microseconds(random() % 3000));
      const size_t role = random() % roles.size();
      const auto end = roles[role].child->Kill();
      temp_.Bury(roles[role].id, end);
      consumers_killed += role >= kProducers;
      start(role);
    }
    queue.Close();
    for (Role& role : roles) {
      const auto end = role.child->Reap();
      EXPECT_EQ(end, testing::Exited(0));
      temp_.Bury(role.id, end);
    }
    uint64_t lost = 0, received = 0;
    for (uint32_t life = 0; life < lives; ++life) {
      const Ledger::Life& one = ledger_->lives[life];
      // A push whose producer died before it could note it may have happened.
      EXPECT_LE(one.received.load(), one.confirmed.load() + 1) << "life " << life << ": duplicates";
      EXPECT_LE(one.highest.load(), one.confirmed.load() + 1) << "life " << life;
      received += one.received.load();
      if (one.received.load() < one.confirmed.load()) lost += one.confirmed.load() - one.received.load();
    }
    EXPECT_GT(received, 0u);
    EXPECT_LE(lost, consumers_killed) << "at most the one message in each dead consumer's hands";
    EXPECT_EQ(ledger_->errors.load(), 0u) << "seed " << seed;
    EXPECT_TRUE(queue.empty());
    segment().refs().Release(queue.handle(), me());
    EXPECT_EQ(segment().Usage().objects, baseline.objects);
    EXPECT_EQ(segment().Usage().used_bytes, baseline.used_bytes);
    for (uint32_t life = 0; life < lives; ++life) {
      ledger_->lives[life].confirmed = ledger_->lives[life].highest = ledger_->lives[life].received = 0;
    }
  }
}

// One consumer sees the queue's order alone: strictly rising serials per producer's life.
TEST_F(QueueChaosTest, OrderOfEachProducerSurvivesTheKills) {
  const uint64_t seed = FromEnvironment("PYHOST_CHAOS_SEED", 1);
  std::mt19937_64 random(seed + 1);
  Queue queue = NewQueue();
  std::map<uint32_t, uint32_t> next;
  std::array<Role, kProducers> roles;
  uint32_t lives = 0;
  const auto start = [&](Role& role) {
    const uint32_t life = lives++;
    role.child = temp_.StartHost([&, life](HostId self) { Produce(self, queue.handle(), life); }, &role.id);
  };
  for (Role& role : roles) start(role);
  const auto check = [&](Wait wait) {
    absl::StatusOr<Message> message = queue.Pop(wait);
    if (!message.ok()) return false;
    const uint32_t life = static_cast<uint32_t>(message->tag() >> 32);
    const uint32_t serial = static_cast<uint32_t>(message->tag());
    EXPECT_EQ(serial, next[life]) << "life " << life;
    next[life] = serial + 1;
    return true;
  };
  for (int kill = 0; kill < 100 && !HasFailure(); ++kill) {
    for (uint64_t i = random() % 300; i > 0; --i) ASSERT_TRUE(check(Wait::Forever()));
    Role& role = roles[random() % roles.size()];
    temp_.Bury(role.id, role.child->Kill());
    start(role);
  }
  for (Role& role : roles) temp_.Bury(role.id, role.child->Kill());
  while (check(Wait::Try())) {
  }
  for (uint32_t life = 0; life < lives; ++life) {
    EXPECT_GE(next[life], ledger_->lives[life].confirmed.load()) << "life " << life << ": lost";
  }
}

}  // namespace
}  // namespace pyhost
