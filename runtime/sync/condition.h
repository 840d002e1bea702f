// Condition: a condition variable for Mutex, shared by all hosts of a session.
//
// Waiters stand in a list with their host's name (wait_list.h), oldest first.  Notify(n) picks the n
// oldest that are alive and tells each of them alone; a waiter takes itself off the list.
//
//   waiter's word     who changes it            the owner dies here
//   Waiting/Asleep    waiter                    its entry is removed by recovery, and skipped by Notify before that
//   Notified          notifier                  the notification is passed on to the next waiter
//
// So a notification is never swallowed by the dead.  What the notifier had not done when it died did not
// happen.  Notify wakes exactly as many as asked: no spurious wake-ups.
//
// Condition is a view: it counts no references.  Thread- and process-safe.

#ifndef PYHOST_RUNTIME_SYNC_CONDITION_H_
#define PYHOST_RUNTIME_SYNC_CONDITION_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/base/wait.h"
#include "runtime/sync/mutex.h"

namespace pyhost {

class Segment;
struct ConditionState;

class Condition {
 public:
  static absl::StatusOr<Condition> Create(Segment& segment, HostId me);
  static absl::StatusOr<Condition> Open(Segment& segment, HostId me, Handle handle);

  Handle handle() const { return handle_; }

  // Releases `mutex` (to any depth), waits for a notification, takes the mutex again to the same depth.
  // FailedPrecondition when the calling thread does not hold the mutex.  Otherwise the mutex is held again on
  // return, whatever is returned: OK = notified; DeadlineExceeded; Aborted = notified or not, a killed host
  // had held the mutex meanwhile (what it protects may be half done); the interruptible's error.
  absl::Status WaitOn(Mutex& mutex, Wait wait);
  // Wakes up to `count` waiters; returns how many.  The caller should hold the mutex of the waiters
  // (that python3 insists on it is the binding's business).
  uint32_t Notify(uint32_t count = 1);
  uint32_t NotifyAll();

  // Waiters that nobody has notified yet; a snapshot.
  uint32_t waiting() const;

 private:
  absl::Status TakeBack(Mutex& mutex, uint32_t depth, Interruptible* interruptible);

  Condition(Segment* segment, HostId me, Handle handle, ConditionState* state)
      : segment_(segment), me_(me), handle_(handle), state_(state) {}

  Segment* segment_;
  HostId me_;
  Handle handle_;
  ConditionState* state_;
};

void RegisterConditionKind();

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SYNC_CONDITION_H_
