// OwnerLock: the internal lock of shared structures.  It survives the death of its owner.
//
// One 32-bit word: {owner HostId:30, spare:1, contended:1}.
//
//   0                      free
//   owner                  held by that host
//   owner | contended      held, and somebody sleeps on the word
//
// A waiter spins, then sleeps.  When its patience ends it checks whether the owner's life has ended (host
// table first, then the operating system) and takes the lock over with one CAS from dead owner to itself:
// Acquired::kOwnerDied then obliges it to repair the structure before using it.  If it dies before it has,
// the next one gets kOwnerDied again.  A host that is merely stopped (SIGSTOP) keeps its lock; who waits for it gives up what
// others may need to continue it (LongWait).
//
// A waker that dies between freeing the lock and waking leaves sleepers that find it free when their
// patience ends (50 ms, doubling up to 1 s).
//
// Thread- and process-safe.  Not recursive.  Critical sections are short, never wait, never run user code.
// What one holder wrote is visible to the next.  The word lies in a segment; this class is only its view in place.

#ifndef PYHOST_RUNTIME_SYNC_OWNER_LOCK_H_
#define PYHOST_RUNTIME_SYNC_OWNER_LOCK_H_

#include <atomic>
#include <cstdint>

#include "runtime/base/ids.h"

namespace pyhost {

class HostTable;

class OwnerLock {
 public:
  enum class Acquired { kClean, kOwnerDied };

  [[nodiscard]] Acquired Lock(HostTable& hosts, HostId me) {
    return TryLock(me) ? Acquired::kClean : LockSlow(hosts, me);
  }
  // Only a free lock; never takes over.
  [[nodiscard]] bool TryLock(HostId me) {
    uint32_t free = 0;
    return word_.compare_exchange_strong(free, Held(me), std::memory_order_acquire, std::memory_order_relaxed);
  }
  void Unlock(HostId me) {
    uint32_t held = Held(me);
    if (!word_.compare_exchange_strong(held, 0, std::memory_order_release, std::memory_order_relaxed)) {
      UnlockSlow(me);
    }
  }
  // For recovery: takes the lock over from `dead` if it holds it.  True: the caller holds it and must repair.
  [[nodiscard]] bool TakeOver(HostId dead, HostId me);
  // 0 when free.
  HostId owner() const { return OwnerOf(word_.load(std::memory_order_relaxed)); }

 private:
  static constexpr uint32_t kContended = 1;
  static constexpr int kOwnerShift = 2;
  static constexpr uint32_t Held(HostId host) { return host.value() << kOwnerShift; }
  static constexpr HostId OwnerOf(uint32_t word) { return HostId::FromValue(word >> kOwnerShift); }

  Acquired LockSlow(HostTable& hosts, HostId me);
  bool SpinForLock(HostId me);
  void UnlockSlow(HostId me);

  std::atomic<uint32_t> word_{0};
};
static_assert(sizeof(OwnerLock) == 4);
static_assert(std::atomic<uint32_t>::is_always_lock_free);

// Holds an OwnerLock for a scope; calls `repair` first when the previous owner died.
template <typename Repair>
class [[nodiscard]] OwnerLockHolder {
 public:
  OwnerLockHolder(OwnerLock& lock, HostTable& hosts, HostId me, Repair repair) : lock_(lock), me_(me) {
    if (lock_.Lock(hosts, me_) == OwnerLock::Acquired::kOwnerDied) repair();
  }
  ~OwnerLockHolder() { lock_.Unlock(me_); }
  OwnerLockHolder(const OwnerLockHolder&) = delete;
  OwnerLockHolder& operator=(const OwnerLockHolder&) = delete;

 private:
  OwnerLock& lock_;
  HostId me_;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SYNC_OWNER_LOCK_H_
