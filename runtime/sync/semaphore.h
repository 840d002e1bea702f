// Semaphore: counting, with a maximum, shared by all hosts of a session.
//
//   value:32        0 ... max_value
//
// Permits have no owner: one taken by a host that dies is not given back by us (a worker that died in its critical
// section is no reason to let one more in).  A waiter that dies, or a releaser that dies between adding the
// permit and waking, loses nothing: recovery wakes the sleepers, who look again.
//
// Semaphore is a view: it counts no references.  Thread- and process-safe.

#ifndef PYHOST_RUNTIME_SYNC_SEMAPHORE_H_
#define PYHOST_RUNTIME_SYNC_SEMAPHORE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/base/wait.h"

namespace pyhost {

class Segment;
struct SemaphoreState;

class Semaphore {
 public:
  static constexpr uint32_t kMaxValue = 0x7fffffff;  // python3's SEM_VALUE_MAX

  // InvalidArgument when initial > max_value or max_value > kMaxValue.
  static absl::StatusOr<Semaphore> Create(Segment& segment, HostId me, uint32_t initial,
                                          uint32_t max_value = kMaxValue);
  static absl::StatusOr<Semaphore> Open(Segment& segment, HostId me, Handle handle);
  // The same without a look-up, for who has held the object ever since a view of it had this state().
  static Semaphore At(Segment&, HostId me, Handle handle, SemaphoreState* state) { return Semaphore(me, handle, state); }

  Handle handle() const { return handle_; }
  SemaphoreState* state() const { return state_; }

  // Takes a permit.  DeadlineExceeded, or the interruptible's error.
  absl::Status Acquire(Wait wait);
  // Gives `count` permits; FailedPrecondition "semaphore or lock released too many times" beyond max_value
  // (then none was given).
  absl::Status Release(uint32_t count = 1);

  uint32_t value() const;
  uint32_t max_value() const;

 private:
  Semaphore(HostId me, Handle handle, SemaphoreState* state) : me_(me), handle_(handle), state_(state) {}

  HostId me_;
  Handle handle_;
  SemaphoreState* state_;
};

void RegisterSemaphoreKind();

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SYNC_SEMAPHORE_H_
