// Mutex: the lock that users see, plain or recursive, shared by all hosts of a session.
//
// One 64-bit word tells everything:
//
//   owner:30 | mark:1 | contended:1 || thread:32
//   0      0            *              0        free
//   o      0            0              t        held by thread t of host o
//   o      0            1              t        held, and somebody may be asleep
//   o      1            *              t        kept: o exited normally while holding; locked until released
//   0      1            *              0        owner died: the next Acquire() reports it once and frees the word
//
// Whose death does what: an owner that was killed leaves "owner died" (recovery, or a waiter that notices, says
// so); one that exited normally leaves "kept", which is python3's behaviour.  A dead waiter leaves at most the
// contended bit, which costs one needless system call.
//
// A plain mutex may be released by any thread of any host; a recursive one by its owner alone.  A thread is
// named by a token that is never used twice in a process, so a new thread never inherits a lock.
//
// Mutex is a view: it counts no references.  Thread- and process-safe.

#ifndef PYHOST_RUNTIME_SYNC_MUTEX_H_
#define PYHOST_RUNTIME_SYNC_MUTEX_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/base/wait.h"

namespace pyhost {

class Segment;
struct MutexState;

class Mutex {
 public:
  enum class Type : uint32_t { kPlain = 1, kRecursive = 2 };

  // A new, unlocked mutex, held (as an object) by `me`.
  static absl::StatusOr<Mutex> Create(Segment& segment, HostId me, Type type);
  // A view of an existing mutex that `me` holds.
  static absl::StatusOr<Mutex> Open(Segment& segment, HostId me, Handle handle);
  // The same without a look-up, for who has held the object ever since a view of it had this state().
  static Mutex At(Segment& segment, HostId me, Handle handle, MutexState* state) {
    return Mutex(&segment, me, handle, state);
  }

  Handle handle() const { return handle_; }
  MutexState* state() const { return state_; }
  Type type() const;

  // OK: locked.  A recursive mutex is locked once more by its owner.  DeadlineExceeded.  Aborted: the owner
  // was killed while holding; reported once, the mutex is *not* held by the caller and is free again.
  // Else the interruptible's error.
  absl::Status Acquire(Wait wait);
  // Plain: FailedPrecondition "semaphore or lock released too many times" when it is not locked.
  // Recursive: FailedPrecondition "attempt to release recursive lock not owned by thread".
  absl::Status Release();

  bool locked() const;
  // The calling thread has it.
  bool is_mine() const;
  // How often this host has it locked: 0, 1, or the depth of a recursive mutex.
  uint32_t count() const;
  // The host that has it; none when free or when the owner was killed.
  HostId owner() const;

  // For Condition: gives a mutex of any depth up at once, and takes it again with that depth.
  // ReleaseAll: FailedPrecondition when the calling thread does not have it.
  absl::StatusOr<uint32_t> ReleaseAll();
  absl::Status AcquireAll(uint32_t count, Wait wait);

 private:
  Mutex(Segment* segment, HostId me, Handle handle, MutexState* state)
      : segment_(segment), me_(me), handle_(handle), state_(state) {}

  absl::Status AcquireSlow(uint32_t depth, Wait wait);
  absl::Status ReleasePlain();
  absl::Status ReleaseRecursive();
  void Free();

  Segment* segment_;
  HostId me_;
  Handle handle_;
  MutexState* state_;
};

// Registers the recover function with the object table.  Called by Session start-up.
void RegisterMutexKind();

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SYNC_MUTEX_H_
