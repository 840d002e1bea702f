#include "runtime/sync/owner_lock.h"

#include <algorithm>
#include <optional>

#include "absl/time/time.h"
#include "runtime/base/long_wait.h"
#include "runtime/os/cpu.h"
#include "runtime/os/futex.h"
#include "runtime/segment/host_table.h"

namespace pyhost {
namespace {

constexpr absl::Duration kFirstPatience = absl::Milliseconds(50);
constexpr absl::Duration kLastPatience = absl::Seconds(1);
constexpr int kSpins = 500;  // about 20 us: many critical sections long

bool OwnerIsDead(const HostTable& hosts, HostId owner) {
  return !HostMayBeAlive(hosts, owner) || hosts.ProcessIsGone(owner);
}

}  // namespace

bool OwnerLock::SpinForLock(HostId me) {
  if (!SpinningMayPay()) return false;
  for (int spin = 0; spin < kSpins; ++spin) {
    if (word_.load(std::memory_order_relaxed) == 0 && TryLock(me)) return true;
    SpinPause();
  }
  return false;
}

OwnerLock::Acquired OwnerLock::LockSlow(HostTable& hosts, HostId me) {
  if (SpinForLock(me)) return Acquired::kClean;
  absl::Duration patience = kFirstPatience;
  std::optional<LongWait> long_wait;
  uint32_t word = word_.load(std::memory_order_relaxed);
  for (;;) {
    // Others may sleep too, hence whoever has slept takes the lock as contended.
    if (word == 0) {
      if (word_.compare_exchange_weak(word, Held(me) | kContended, std::memory_order_acquire,
                                      std::memory_order_relaxed)) {
        return Acquired::kClean;
      }
      continue;
    }
    if ((word & kContended) == 0 &&
        !word_.compare_exchange_weak(word, word | kContended, std::memory_order_relaxed)) {
      continue;
    }
    word |= kContended;
    const auto result = futex::Wait(word_, word, Deadline::After(patience));
    if (result == futex::WaitResult::kTimedOut) {
      if (!long_wait) long_wait.emplace();
      patience = std::min(patience * 2, kLastPatience);
      // `word` names the owner; the CAS fails if the lock has changed hands since.
      if (OwnerIsDead(hosts, OwnerOf(word)) &&
          word_.compare_exchange_strong(word, Held(me) | kContended, std::memory_order_acquire,
                                        std::memory_order_relaxed)) {
        return Acquired::kOwnerDied;
      }
    }
    word = word_.load(std::memory_order_relaxed);
  }
}

void OwnerLock::UnlockSlow(HostId me) {
  // Contended.  (A word that is not ours at all can only come from damaged memory: leave it to its owner.)
  uint32_t word = word_.load(std::memory_order_relaxed);
  while (OwnerOf(word) == me) {
    if (word_.compare_exchange_weak(word, 0, std::memory_order_release, std::memory_order_relaxed)) {
      futex::Wake(word_, 1);
      return;
    }
  }
}

bool OwnerLock::TakeOver(HostId dead, HostId me) {
  uint32_t word = word_.load(std::memory_order_relaxed);
  while (dead && OwnerOf(word) == dead) {
    if (word_.compare_exchange_weak(word, Held(me) | kContended, std::memory_order_acquire,
                                    std::memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

}  // namespace pyhost
