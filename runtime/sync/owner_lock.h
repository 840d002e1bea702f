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
// Acquired::kOwnerDied then obliges it to repair the structure before using it.  A host that is merely
// stopped (SIGSTOP) keeps its lock.
//
// Thread- and process-safe.  Not recursive.  Critical sections are short, never wait, never run user code.
// The word lies in a segment; this class is only its view in place.

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

  [[nodiscard]] Acquired Lock(HostTable& hosts, HostId me);
  [[nodiscard]] bool TryLock(HostId me);  // Only a free lock; never takes over.
  void Unlock(HostId me);
  // For recovery: takes the lock over from `dead` if it holds it.  True: the caller holds it and must repair.
  [[nodiscard]] bool TakeOver(HostId dead, HostId me);
  HostId owner() const;

 private:
  std::atomic<uint32_t> word_{0};
};
static_assert(sizeof(OwnerLock) == 4);
static_assert(std::atomic<uint32_t>::is_always_lock_free);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SYNC_OWNER_LOCK_H_
