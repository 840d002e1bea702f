#include "runtime/sync/waiter.h"

#include <algorithm>
#include <bit>

#include "runtime/os/futex.h"

namespace pyhost {
namespace {

constexpr uint64_t kOneSleeper = uint64_t{1} << 32;

// The half of the word that the kernel compares: the sequence.
static_assert(std::endian::native == std::endian::little);
const uint32_t* SequenceAddress(const std::atomic<uint64_t>& word) {
  return reinterpret_cast<const uint32_t*>(&word);
}

// The word after a waker took `woken` sleepers off; the sequence wraps within its own half.
uint64_t AfterWake(uint64_t word, uint32_t woken) {
  const uint64_t sleepers = (word >> 32) - woken;
  return sleepers << 32 | static_cast<uint32_t>(static_cast<uint32_t>(word) + 1);
}

}  // namespace

void WaitPoint::WakeSleepers(uint32_t count) {
  while (count > 0) {
    uint64_t word = word_.load(std::memory_order_relaxed);
    if (SleepersOf(word) == 0) return;
    if (TakeSpinner()) {
      --count;
      continue;
    }
    const uint32_t woken = std::min(count, SleepersOf(word));
    if (!word_.compare_exchange_weak(word, AfterWake(word, woken))) continue;
    futex::Wake(SequenceAddress(word_), static_cast<int>(std::min<uint32_t>(woken, 1 << 20)));
    count -= woken;
  }
}

void WaitPoint::WakeAllSleepers() {
  uint64_t word = word_.load(std::memory_order_relaxed);
  while (!word_.compare_exchange_weak(word, AfterWake(word, SleepersOf(word)))) {
  }
  futex::WakeAll(SequenceAddress(word_));
}

void WaitPoint::Recover(HostId dead) {
  uint32_t spinner = dead.value();
  spinner_.compare_exchange_strong(spinner, 0);
  WakeAllSleepers();
}

uint32_t WaitPoint::CountSleeper() { return SequenceOf(word_.fetch_add(kOneSleeper)); }

void WaitPoint::UncountSleeper(uint32_t sequence) {
  uint64_t word = word_.load(std::memory_order_relaxed);
  while (SequenceOf(word) == sequence && SleepersOf(word) != 0) {
    if (word_.compare_exchange_weak(word, word - kOneSleeper)) return;
  }
}

WaitPoint::SleepResult WaitPoint::Sleep(uint32_t sequence, Deadline until) {
  const int64_t start = Deadline::MonotonicNanos();
  switch (futex::Wait(SequenceAddress(word_), sequence, until)) {
    case futex::WaitResult::kWoken:
    case futex::WaitResult::kChanged:
      // Still counted?  Then the waker meant somebody who entered before us and still sleeps: stay counted for them.
      LearnFromSleep(Deadline::MonotonicNanos() - start);
      return SleepResult::kWoken;
    case futex::WaitResult::kTimedOut:
      UncountSleeper(sequence);
      return SleepResult::kTimedOut;
    case futex::WaitResult::kInterrupted:
      UncountSleeper(sequence);
      return SleepResult::kInterrupted;
  }
  return SleepResult::kWoken;
}

int64_t WaitPoint::SpinNanos() const {
  const int64_t learnt = spin_nanos_.load(std::memory_order_relaxed);
  return learnt == 0 ? kMaxSpinNanos : std::clamp(learnt, kMinSpinNanos, kMaxSpinNanos);
}

// A plain load and store: a lost update loses one observation, no more.
void WaitPoint::LearnFromSpin(int64_t nanos, bool found) {
  const int64_t now = SpinNanos();
  const int64_t next = found ? std::max(now, 2 * nanos) : now * 3 / 4;
  if (next != now) {
    spin_nanos_.store(static_cast<uint32_t>(std::clamp(next, kMinSpinNanos, kMaxSpinNanos)),
                      std::memory_order_relaxed);
  }
}

// A sleep this short means that spinning a little longer would have spared it.
void WaitPoint::LearnFromSleep(int64_t nanos) {
  if (nanos < kMaxSpinNanos) {
    spin_nanos_.store(static_cast<uint32_t>(kMaxSpinNanos), std::memory_order_relaxed);
  }
}

}  // namespace pyhost
