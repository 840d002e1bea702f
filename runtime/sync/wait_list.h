// WaitList: those who wait at a condition or a barrier, by name, so that one can be told something without the others.
//
//   entry's word   meaning                     becomes
//   Free           nobody                      Waiting, by Join under the lock
//   Waiting        `host` waits                Told/Broken by who tells it, under the lock; Free by a waiter that
//                                              gives up
//   Told, Broken   what the waiter was told    Free, by the waiter: this is the moment it has heard it
//
// Each step is one atomic operation, so the death of the lock's owner needs no repair of the list itself.  A
// dead waiter's entry stays until somebody removes it (Remove): what it was told tells what got lost.
//
// Entries never move: the first few stand in the object's cell, more in Memory objects that the list's object
// owns (one transit each).
//
// A view of a WaitListState; process-safe; used by the object's classes alone.

#ifndef PYHOST_RUNTIME_SYNC_WAIT_LIST_H_
#define PYHOST_RUNTIME_SYNC_WAIT_LIST_H_

#include <cstdint>
#include <functional>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/base/wait.h"
#include "runtime/sync/sync_layout.h"

namespace pyhost {

class Segment;

class WaitList {
 public:
  enum class Word : uint32_t { kFree = 0, kWaiting = 1, kTold = 2, kBroken = 3 };

  WaitList(Segment& segment, HostId me, WaitListState& state)
      : segment_(segment), me_(me), state_(state) {}

  // ---- Under state.lock ----

  // A new Waiting entry of this host.  ResourceExhausted when no memory, or too many wait.
  absl::StatusOr<WaitEntry*> Join(uint64_t turn);
  uint64_t NextTurn() { return ++state_.next_turn; }
  void ForEach(absl::FunctionRef<void(WaitEntry&)> visit) const;
  // Tells it to a Waiting entry and wakes the waiter.  False when it had given up.
  bool Tell(WaitEntry& entry, Word word);
  // Tells it to all who wait; returns how many.
  uint32_t TellAll(Word word);
  // Tells it to the `count` living ones with the lowest turn.
  uint32_t TellOldest(uint32_t count, Word word);

  // ---- The waiter, without the lock ----

  // Waits until told.  OK; DeadlineExceeded; what `on_patience` or the interruptible says.
  absl::Status Await(WaitEntry& entry, Wait wait, absl::FunctionRef<absl::Status()> on_patience);
  // Frees the entry; what had it been told?  kWaiting: nothing.
  static Word Leave(WaitEntry& entry);

  // ---- For the object's kind ----

  uint32_t CountWaiting() const;
  // Removes the entries of `dead`; returns how many had been told and have not heard it.  Wakes all others, who may
  // have been told by the dead one.
  uint32_t Remove(HostId dead);
  void VisitExtents(absl::FunctionRef<void(Handle)> visit) const;

 private:
  static Word WordOf(const WaitEntry& entry) {
    return static_cast<Word>(entry.word.load(std::memory_order_acquire));
  }
  WaitEntry* Entry(uint32_t index) const;
  absl::StatusOr<WaitEntry*> Grow();
  absl::Status AddExtent(size_t extent);
  WaitEntry* OldestWaiting();

  Segment& segment_;
  const HostId me_;
  WaitListState& state_;
};

// Holds the lock of a list.
class WaitListLock {
 public:
  WaitListLock(Segment& segment, HostId me, WaitListState& state);
  ~WaitListLock() { lock_.Unlock(me_); }
  WaitListLock(const WaitListLock&) = delete;
  WaitListLock& operator=(const WaitListLock&) = delete;

  // The owner before died holding it.  The list itself needs no repair; what else the lock guards may.
  bool owner_died() const { return owner_died_; }

 private:
  OwnerLock& lock_;
  const HostId me_;
  const bool owner_died_;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SYNC_WAIT_LIST_H_
