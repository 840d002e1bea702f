// Hosts that use every kind of lock at once, killed at random moments, thousands of times if asked for.
//
// Checked: nobody waits for ever; a mutex has one holder at a time, and each death with a mutex in hand is reported at
// most once; permits get lost with their holders alone; barriers break instead of hanging; in the end nothing is left
// locked, waiting or allocated.
//
// Reproducible as far as the machine allows: PYHOST_CHAOS_SEED chooses the schedule of kills, PYHOST_CHAOS_KILLS
// how many there are.

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>

#include "gtest/gtest.h"
#include "runtime/os/cpu.h"
#include "runtime/segment/host_table.h"
#include "runtime/sync/sync_test_util.h"

namespace pyhost {
namespace {

using ::pyhost::testing::Child;

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* value = getenv(name);
  return value == nullptr ? otherwise : strtoull(value, nullptr, 10);
}

constexpr size_t kRoles = 5;
constexpr uint32_t kParties = 3, kPermits = 3;
constexpr absl::Duration kHang = absl::Seconds(20);

// What the processes write down outside of the segment; survives them all.
struct Ledger {
  enum Permit : uint32_t { kNone, kAcquiring, kHolding, kReleasing };
  struct Role {
    std::atomic<uint64_t> steps;
    std::atomic<const char*> doing;         // a literal, the same in all forks
    std::atomic<uint32_t> near_a_mutex;     // between the beginning of an acquire and the end of a release
    std::atomic<Permit> permit;
  };
  std::atomic<uint32_t> stop, errors;
  std::atomic<uint32_t> deaths_reported;    // Aborted, by mutexes
  std::atomic<uint32_t> inside[2];          // the HostId in the critical section of each mutex
  std::atomic<uint32_t> items;              // guarded by the condition's mutex
  Role roles[kRoles];
};

class LocksChaosTest : public SyncFixture {
 protected:
  LocksChaosTest()
      : ledger_(static_cast<Ledger*>(
            mmap(nullptr, sizeof(Ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}
  ~LocksChaosTest() override { munmap(ledger_, sizeof(Ledger)); }

  void Complain(const std::string& what) {
    fprintf(stderr, "%s\n", what.c_str());
    ledger_->errors.fetch_add(1);
  }

  // ---- What a host does with each lock ----

  struct Locks {
    Mutex plain, recursive, guard;
    Semaphore permits;
    Condition arrived;
    Event raised;
    Barrier barrier;
  };

  struct Host {
    HostId id;
    Ledger::Role& notes;
    std::mt19937_64 random;
    Locks locks;
  };

  // Acquires for sure: one that hears of a death tries again.  False: the mutex broke its promises.
  bool AcquireSurely(Host& host, Mutex& mutex) {
    host.notes.near_a_mutex.store(1);
    absl::Status status;
    while (absl::IsAborted(status = mutex.Acquire(Wait::Forever()))) ledger_->deaths_reported.fetch_add(1);
    if (!status.ok()) Complain(status.ToString());
    return status.ok();
  }
  void ReleaseSurely(Host& host, Mutex& mutex) {
    if (absl::Status status = mutex.Release(); !status.ok()) Complain(status.ToString());
    host.notes.near_a_mutex.store(0);
  }

  void UseMutex(Host& host, Mutex& mutex, std::atomic<uint32_t>& inside, int depth) {
    for (int i = 0; i < depth; ++i) {
      if (!AcquireSurely(host, mutex)) return;
    }
    const HostId other = HostId::FromValue(inside.exchange(host.id.value()));
    if (other && !(other == host.id) && segment().hosts().IsRunning(other) && !segment().hosts().ProcessIsGone(other)) {
      Complain("two hosts hold the mutex");
    }
    for (uint64_t spin = host.random() % 2000; spin > 0; --spin) SpinPause();
    if (HostId::FromValue(inside.exchange(0)) != host.id) Complain("another host got in");
    for (int i = 0; i < depth; ++i) ReleaseSurely(host, mutex);
  }

  void UsePermit(Host& host) {
    host.notes.permit.store(Ledger::kAcquiring);
    const absl::Status status = host.locks.permits.Acquire(For(absl::Milliseconds(20)));
    host.notes.permit.store(status.ok() ? Ledger::kHolding : Ledger::kNone);
    if (!status.ok()) return;
    for (uint64_t spin = host.random() % 2000; spin > 0; --spin) SpinPause();
    host.notes.permit.store(Ledger::kReleasing);
    if (absl::Status released = host.locks.permits.Release(); !released.ok()) Complain(released.ToString());
    host.notes.permit.store(Ledger::kNone);
  }

  void TakeItem(Host& host) {
    if (!AcquireSurely(host, host.locks.guard)) return;
    while (ledger_->items.load() == 0 && ledger_->stop.load() == 0) {
      const absl::Status status = host.locks.arrived.WaitOn(host.locks.guard, Wait::Forever());
      if (absl::IsAborted(status)) ledger_->deaths_reported.fetch_add(1);
      if (!status.ok() && !absl::IsAborted(status)) Complain(status.ToString());
    }
    if (ledger_->items.load() != 0) ledger_->items.fetch_sub(1);
    ReleaseSurely(host, host.locks.guard);
  }
  void PutItem(Host& host) {
    if (!AcquireSurely(host, host.locks.guard)) return;
    if (ledger_->items.load() < 10) ledger_->items.fetch_add(1);
    host.locks.arrived.Notify();
    ReleaseSurely(host, host.locks.guard);
  }

  void Meet(Host& host) {
    const absl::StatusOr<uint32_t> index = host.locks.barrier.Arrive(Wait::Forever());
    if (index.ok() && *index >= kParties) Complain("impossible order of arrival");
    if (absl::IsAborted(index.status()) && ledger_->stop.load() == 0) {
      host.locks.barrier.Reset();
    } else if (!index.ok() && !absl::IsAborted(index.status())) {
      Complain(index.status().ToString());
    }
  }

  void Step(Host& host) {
    const auto does = [&](const char* what) { host.notes.doing.store(what); };
    switch (host.random() % 8) {
      case 0: does("mutex"); return UseMutex(host, host.locks.plain, ledger_->inside[0], 1);
      case 1: does("recursive mutex"); return UseMutex(host, host.locks.recursive, ledger_->inside[1], 3);
      case 2: does("semaphore"); return UsePermit(host);
      case 3: does("condition"); return TakeItem(host);
      case 4: does("notify"); return PutItem(host);
      case 5: does("barrier"); return Meet(host);
      case 6: does("set event"); return host.locks.raised.Set();
      default:
        does("event");
        if (absl::Status waited = host.locks.raised.WaitUntilSet(Wait::Forever()); !waited.ok()) {
          Complain(waited.ToString());
        }
    }
  }

  // ---- The schedule ----

  struct Running {
    std::unique_ptr<Child> child;
    HostId id;
    uint64_t seen_steps = 0;
    absl::Time since;
  };

  void Start(size_t role, uint64_t seed) {
    Ledger::Role& notes = ledger_->roles[role];
    notes.near_a_mutex.store(0);
    notes.permit.store(Ledger::kNone);
    Running& running = running_[role];
    running.child = temp_.StartHost(
        [&, seed](HostId self) {
          Host host{self, notes, std::mt19937_64(seed),
                    {As(mine_->plain, self), As(mine_->recursive, self), As(mine_->guard, self),
                     As(mine_->permits, self), As(mine_->arrived, self), As(mine_->raised, self),
                     As(mine_->barrier, self)}};
          while (ledger_->stop.load() == 0) {
            Step(host);
            notes.steps.fetch_add(1);
          }
        },
        &running.id);
    running.since = absl::Now();
  }

  void Kill(size_t role) {
    const auto end = running_[role].child->Kill();
    const Ledger::Role& notes = ledger_->roles[role];
    deaths_near_a_mutex_ += notes.near_a_mutex.load();
    const auto permit = notes.permit.load();
    uncertain_permits_ += permit == Ledger::kAcquiring || permit == Ledger::kReleasing;
    const uint32_t give_back = (permit == Ledger::kHolding) + (uncertain_permits_ >= 2 * (topped_up_ + 1));
    topped_up_ += give_back - (permit == Ledger::kHolding);
    if (give_back != 0) {
      EXPECT_OK(mine_->permits.Release(give_back));
    }
    temp_.Bury(running_[role].id, end);
  }

  // Somebody must come along with news, or those who wait would do so rightly.
  void Nudge(uint64_t round) {
    if (round % 2 == 0) {
      mine_->raised.Set();
    } else {
      mine_->raised.Clear();
    }
    ledger_->items.store(3);
    mine_->arrived.Notify();
  }

  void LookForHangs() {
    for (size_t role = 0; role < kRoles; ++role) {
      Running& running = running_[role];
      const Ledger::Role& notes = ledger_->roles[role];
      const uint64_t steps = notes.steps.load();
      if (steps != running.seen_steps) {
        running.seen_steps = steps;
        running.since = absl::Now();
      } else if (absl::Now() - running.since > kHang) {
        Complain(std::string("hangs: ") + notes.doing.load());
        running.since = absl::Now();
      }
    }
  }

  Ledger* ledger_;
  std::unique_ptr<Locks> mine_;
  std::array<Running, kRoles> running_;
  uint32_t deaths_near_a_mutex_ = 0, uncertain_permits_ = 0, topped_up_ = 0;
};

TEST_F(LocksChaosTest, RandomKillsLeaveEveryLockUsable) {
  const uint64_t seed = FromEnvironment("PYHOST_CHAOS_SEED", 1);
  const uint64_t kills = FromEnvironment("PYHOST_CHAOS_KILLS", 200);
  RecordProperty("seed", std::to_string(seed));
  std::mt19937_64 random(seed);
  const SegmentUsage baseline = segment().Usage();
  mine_.reset(new Locks{NewMutex(), NewMutex(Mutex::Type::kRecursive), NewMutex(), NewSemaphore(kPermits),
                        NewCondition(), NewEvent(), NewBarrier(kParties)});
  for (size_t role = 0; role < kRoles; ++role) Start(role, random());
  for (uint64_t kill = 0; kill < kills && ledger_->errors.load() == 0; ++kill) {
    for (uint64_t nudges = random() % 20; nudges > 0; --nudges) {
      Nudge(nudges);
      absl::SleepFor(absl::Microseconds(100));
    }
    const size_t role = random() % kRoles;
    Kill(role);
    Start(role, random());
    LookForHangs();
  }

  // All of them come to their end by themselves.
  ledger_->stop.store(1);
  for (size_t role = 0; role < kRoles; ++role) {
    const absl::Time start = absl::Now();
    const pid_t pid = running_[role].child->pid();
    siginfo_t info = {};
    while (waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0) {
      mine_->raised.Set();
      mine_->arrived.NotifyAll();
      mine_->barrier.Abort();
      absl::SleepFor(absl::Milliseconds(1));
      ASSERT_LT(absl::Now() - start, kHang) << "hangs at the end: " << ledger_->roles[role].doing.load();
    }
    const auto end = running_[role].child->Reap();
    EXPECT_EQ(end, testing::Exited(0));
    temp_.Bury(running_[role].id, end);
  }
  EXPECT_EQ(ledger_->errors.load(), 0u) << "seed " << seed;
  for (Mutex* mutex : {&mine_->plain, &mine_->recursive, &mine_->guard}) {
    absl::Status taken = mutex->Acquire(Wait::Try());
    if (absl::IsAborted(taken)) taken = mutex->Acquire(Wait::Try());
    EXPECT_OK(taken);
    EXPECT_OK(mutex->Release());
  }
  EXPECT_LE(ledger_->deaths_reported.load(), deaths_near_a_mutex_);
  if (kills >= 200) {
    EXPECT_GT(ledger_->deaths_reported.load(), 0u);
  }
  EXPECT_LE(mine_->permits.value(), kPermits + topped_up_);
  EXPECT_GE(mine_->permits.value() + uncertain_permits_, kPermits + topped_up_);
  EXPECT_EQ(mine_->arrived.waiting(), 0u);
  mine_->barrier.Reset();
  EXPECT_EQ(mine_->barrier.n_waiting(), 0u);
  for (Handle handle : {mine_->plain.handle(), mine_->recursive.handle(), mine_->guard.handle(),
                        mine_->permits.handle(), mine_->arrived.handle(), mine_->raised.handle(),
                        mine_->barrier.handle()}) {
    segment().refs().Release(handle, me());
  }
  EXPECT_EQ(segment().Usage().objects, baseline.objects);
  EXPECT_EQ(segment().Usage().used_bytes, baseline.used_bytes);
}

}  // namespace
}  // namespace pyhost
