// WaitPoint: where threads of all processes wait until something in shared memory becomes true.  It spins for
// a bounded time, then sleeps in the kernel; whoever makes the thing true calls Notify.
//
//   // In a struct in the segment (all zero = initialised):     WaitPoint readable;
//   // Waiting side.  `ready` looks, or tries to take; it is cheap, and does nothing when it returns false:
//   absl::Status status = state->readable.Await(me, wait, [&] { return TryTake(&item); });
//   // Other side:
//   Publish(item);
//   state->readable.Notify();        // makes no system call unless somebody sleeps and nobody spins
//
// `ready` runs without any lock of this class, and while the GIL is given up.  A woken waiter takes what it
// was woken for; one that only looks (or gives up with an error after a look that said true) calls Notify(1)
// so that the wake-up is not lost for those who would take.  Waiters for different conditions use
// different wait points, or NotifyAll.
//
// Protocol.  word_ = {sleepers:32 | sequence:32}; the futex is on the sequence.
//   sleeper: 1. sleepers+1 (note the sequence)   2. look again   3. FUTEX_WAIT while the sequence is the noted one
//   waker:   1. make it true   2. read word_     3. no sleepers: done; a registered spinner: take its
//            registration away, done; else {sequence+1, sleepers-n} in one CAS, then FUTEX_WAKE(n)
//
// No wake-up is lost:
//  (1) The waker reads word_ with a read-modify-write, as the sleeper counts itself with one.  Either the waker
//      comes later and sees the sleeper, or it comes earlier and the sleeper's second look sees what it made true.
//  (2) A waker that sees a sleeper changes the sequence before it wakes: a sleeper between 1 and 3 does not fall asleep.
//  (3) sleepers is never below the number of those asleep: a waker subtracts as many as it then wakes; who
//      leaves by itself (time-out, signal) subtracts itself only if the sequence is still the noted one, that
//      is, if no waker can have subtracted it already.
//  (4) A waker that takes a spinner's registration away counts on a look after that.  A spinner without one looks once
//      more; one that has just taken something, in a look begun before, passes the wake-up on if there is more.
// Too high a count (after (3), or a sleeper that died) costs one needless FUTEX_WAKE.  Someone that dies with a
// wake-up in hand (a spinner, or just woken) is made good by Recover(), and in any case by the patience of
// the sleepers, who look again after 50 ms, 100 ms, ... 4 s at most.
//
// Signals.  One that arrives in a sleep ends it (EINTR), and OnSignal runs at once.  One that arrives in a spin
// interrupts nothing; hence the first sleep after each spin is short, and OnSignal runs after it too: 50 ms late at most.
//
// The spin time adapts per wait point: long while things come soon, short when spinning was in vain.  With
// fewer than two usable cores nobody spins.  One thread spins at a time; the others sleep.  A spinner that
// has woken somebody, or was woken itself, yields its processor a few times: the other may be waiting for it.
//
// Thread- and process-safe.  16 bytes, all-zero is a valid start.

#ifndef PYHOST_RUNTIME_SYNC_WAITER_H_
#define PYHOST_RUNTIME_SYNC_WAITER_H_

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runtime/base/deadline.h"
#include "runtime/base/ids.h"
#include "runtime/base/wait.h"
#include "runtime/os/cpu.h"
#include "runtime/os/futex.h"

namespace pyhost {

class WaitPoint {
 public:
  // Returns OkStatus once ready() was true; DeadlineExceeded, or the interruptible's own error, when it was
  // not.  An immediate deadline looks once and never blocks.
  template <typename Ready>
  absl::Status Await(HostId me, Wait wait, Ready&& ready) {
    return Await(me, wait, ready, [] { return absl::OkStatus(); });
  }
  // `on_patience` runs each time a sleep outlasted its patience: the place to look for a death.  Its error
  // ends the wait.
  template <typename Ready, typename OnPatience>
  absl::Status Await(HostId me, Wait wait, Ready&& ready, OnPatience&& on_patience) {
    return Await(me, wait, ready, on_patience, [] { return true; });
  }
  // `more` says whether another waiter would find something after ready() took its own: it spares a needless wake-up.
  template <typename Ready, typename OnPatience, typename More>
  absl::Status Await(HostId me, Wait wait, Ready&& ready, OnPatience&& on_patience, More&& more);

  // The part of Await that spins: whether ready() became true.  Blocks the interruptible, does not sleep.
  template <typename Ready, typename More>
  bool AwaitSpinning(HostId me, Wait wait, Ready&& ready, More&& more) {
    BlockingScope blocking(wait.interruptible);
    return Spin(me, wait.deadline, ready, more);
  }

  // The part of Await that sleeps, for short times: without patience.
  template <typename Ready>
  absl::Status AwaitAsleep(Wait wait, Ready&& ready);

  // What was waited for has become true for `count` waiters.
  void Notify(uint32_t count = 1) {
    if (SleepersOf(Observe()) != 0) WakeSleepers(count);
  }
  // The same for one waiter; before it makes a system call it asks spare(), whether it is needless.
  template <typename Spare>
  void NotifyUnless(Spare&& spare) {
    if (SleepersOf(Observe()) != 0 && !TakeSpinner() && !spare()) WakeSleepers(1);
  }
  // ... for all of them.
  void NotifyAll() {
    if (SleepersOf(Observe()) != 0) WakeAllSleepers();
  }
  // After the death of `dead`, by its recovery: wakes everybody, to look for themselves.
  void Recover(HostId dead);

  // For tests and the live view.
  uint32_t sleepers() const { return SleepersOf(word_.load(std::memory_order_relaxed)); }
  HostId spinner() const { return HostId::FromValue(spinner_.load(std::memory_order_relaxed)); }

  static constexpr int64_t kMinSpinNanos = 4'000;
  static constexpr int64_t kMaxSpinNanos = 50'000;  // twice what a wake-up through the kernel costs

 private:
  enum class SleepResult { kWoken, kTimedOut, kInterrupted };
  // Lets a sleeping waiter look at the world again at growing intervals.
  class Patience {
   public:
    Deadline Until(Deadline deadline) const { return deadline.AtMost(next_); }
    void Lost() { next_ = std::min(next_ * 2, absl::Seconds(4)); }
    void BeginAnew() { next_ = kFirst; }

   private:
    static constexpr absl::Duration kFirst = absl::Milliseconds(50);
    absl::Duration next_ = kFirst;
  };

  static uint32_t SequenceOf(uint64_t word) { return static_cast<uint32_t>(word); }
  static uint32_t SleepersOf(uint64_t word) { return static_cast<uint32_t>(word >> 32); }

  // See (1): a read-modify-write, although it changes nothing.
  uint64_t Observe() { return word_.fetch_add(0, std::memory_order_seq_cst); }
  // A waiter that spins is looking right now: it counts as woken.
  bool TakeSpinner() { return spinner_.load(std::memory_order_relaxed) != 0 && spinner_.exchange(0) != 0; }
  void WakeSleepers(uint32_t count);
  void WakeAllSleepers();

  // Sleeping.  Each CountSleeper is followed by one Sleep or UncountSleeper with the sequence it returned.
  uint32_t CountSleeper();
  void UncountSleeper(uint32_t sequence);
  SleepResult Sleep(uint32_t sequence, Deadline until);

  // Spinning.
  bool RegisterSpinner(HostId me) {
    uint32_t none = 0;
    return SpinningPays() && spinner_.compare_exchange_strong(none, me.value());
  }
  bool IsSpinner(HostId me) const { return spinner_.load() == me.value(); }
  // False: a waker has taken the registration away.
  bool UnregisterSpinner(HostId me) {
    uint32_t mine = me.value();
    return spinner_.compare_exchange_strong(mine, 0);
  }
  int64_t SpinNanos() const;
  void LearnFromSpin(int64_t nanos, bool found);
  void LearnFromSleep(int64_t nanos);
  template <typename Ready, typename More>
  bool Spin(HostId me, Deadline deadline, Ready& ready, More& more);

  std::atomic<uint64_t> word_{0};       // {sleepers:32 | sequence:32}
  std::atomic<uint32_t> spinner_{0};    // HostId of the one that spins, 0 = none
  std::atomic<uint32_t> spin_nanos_{0};  // how long spinning is worth it here; 0 = not learnt yet
};
static_assert(sizeof(WaitPoint) == 16);
static_assert(std::atomic<uint64_t>::is_always_lock_free);

template <typename Ready, typename More>
bool WaitPoint::Spin(HostId me, Deadline deadline, Ready& ready, More& more) {
  constexpr int kLooksPerClockReading = 32;
  constexpr int kYields = 4;
  int yields_left = futex::BeginSpinning() ? kYields : 0;
  if (!RegisterSpinner(me)) return false;
  const int64_t start = Deadline::MonotonicNanos();
  const Deadline end = deadline.AtMost(absl::Nanoseconds(SpinNanos()));
  bool found = false, registered = true;
  do {
    if (yields_left > 0) {
      --yields_left;
      sched_yield();
    }
    for (int look = 0; look < kLooksPerClockReading && !found; ++look) {
      SpinPause();
      registered = IsSpinner(me);
      found = ready();
    }
  } while (!found && !end.Expired());
  const bool counted_on = !UnregisterSpinner(me);
  if (found && registered && counted_on && more()) Notify();  // (4)
  LearnFromSpin(Deadline::MonotonicNanos() - start, found);
  return found || ready();  // (4)
}

template <typename Ready>
absl::Status WaitPoint::AwaitAsleep(Wait wait, Ready&& ready) {
  BlockingScope blocking(wait.interruptible);
  for (;;) {
    const uint32_t sequence = CountSleeper();
    if (ready()) {
      UncountSleeper(sequence);
      return absl::OkStatus();
    }
    Sleep(sequence, wait.deadline);
    if (ready()) return absl::OkStatus();
    if (wait.deadline.Expired()) return absl::DeadlineExceededError("the deadline expired");
    if (wait.interruptible == nullptr) continue;
    absl::Status status = wait.interruptible->OnSignal();
    if (!status.ok()) return status;
  }
}

template <typename Ready, typename OnPatience, typename More>
absl::Status WaitPoint::Await(HostId me, Wait wait, Ready&& ready, OnPatience&& on_patience, More&& more) {
  if (ready()) return absl::OkStatus();
  if (wait.deadline.is_immediate()) return absl::DeadlineExceededError("not ready, and not to wait");
  BlockingScope blocking(wait.interruptible);
  Patience patience;
  if (Spin(me, wait.deadline, ready, more)) return absl::OkStatus();
  for (;;) {
    const uint32_t sequence = CountSleeper();
    if (ready()) {
      UncountSleeper(sequence);
      return absl::OkStatus();
    }
    const SleepResult result = Sleep(sequence, patience.Until(wait.deadline));
    if (ready()) return absl::OkStatus();
    if (result == SleepResult::kWoken) {
      if (Spin(me, wait.deadline, ready, more)) return absl::OkStatus();
      patience.BeginAnew();  // see Signals
      continue;
    }
    if (wait.deadline.Expired()) return absl::DeadlineExceededError("the deadline expired");
    // A signal may also have come just before the sleep, hence in both cases.
    if (wait.interruptible != nullptr) {
      absl::Status status = wait.interruptible->OnSignal();
      if (!status.ok()) return status;
    }
    if (result == SleepResult::kTimedOut) {
      patience.Lost();
      absl::Status status = on_patience();
      if (!status.ok()) return status;
    }
  }
}

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SYNC_WAITER_H_
