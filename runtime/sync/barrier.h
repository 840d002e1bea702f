// Barrier: `parties` threads of any hosts wait for each other, again and again.
//
//   phase        who is inside                      leaves it by                           its owner dies here
//   Filling      0 ... parties-1 waiting            last arrival -> Acting; timeout,       -> Broken
//                                                   Abort(), an error -> Broken
//   Acting       all; the last runs the action      done -> Releasing; it fails -> Broken  -> Broken
//   Releasing    all; the last tells the others     all told -> Filling, next round        the next one finishes it
//   Broken       nobody stays, nobody may enter     Reset() -> Filling
//
// "Owner": a party that waits (Filling), the last to arrive (Acting, Releasing).
//
// python3's semantics (threading.Barrier), with one difference: nobody has to wait until the last round has
// drained, because each waiter is released by name (wait_list.h).
//
// Death of a party that waits breaks the barrier: the others get BrokenBarrier instead of waiting for one who
// will never come to the next round.  Death of a party that was already released changes nothing.
//
// Barrier is a view: it counts no references.  Thread- and process-safe.

#ifndef PYHOST_RUNTIME_SYNC_BARRIER_H_
#define PYHOST_RUNTIME_SYNC_BARRIER_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/base/wait.h"

namespace pyhost {

class Segment;
struct BarrierState;
struct WaitEntry;

void RegisterBarrierKind();

class Barrier {
 public:
  using Action = absl::FunctionRef<absl::Status()>;

  // InvalidArgument when parties is 0.
  static absl::StatusOr<Barrier> Create(Segment& segment, HostId me, uint32_t parties);
  static absl::StatusOr<Barrier> Open(Segment& segment, HostId me, Handle handle);

  Handle handle() const { return handle_; }

  // Waits until all parties have come; returns the order of arrival, 0 ... parties-1.
  // Aborted: the barrier is or was broken or reset (python3's BrokenBarrierError).  A deadline that passes, and
  // an interruptible's error, break it; the former returns Aborted, the latter that error.
  absl::StatusOr<uint32_t> Arrive(Wait wait);
  // The last to arrive runs `action` before the others are released; its error breaks the barrier and is
  // returned to the one who ran it.
  absl::StatusOr<uint32_t> Arrive(Wait wait, Action action);

  // Back to Filling with nobody inside; those who wait get Aborted.
  void Reset();
  // Broken until Reset(); those who wait get Aborted.
  void Abort();

  bool broken() const;
  uint32_t parties() const;
  uint32_t n_waiting() const;

 private:
  friend void RegisterBarrierKind();
  class Guard;
  absl::StatusOr<uint32_t> WaitForOthers(uint32_t index, WaitEntry& entry, uint32_t round,
                                         Wait wait);
  absl::StatusOr<uint32_t> ActAndRelease(uint32_t index, uint32_t round, Action action);
  absl::Status WaitUntilReopened(Wait wait);
  absl::Status BreakIfSomebodyDied();
  void Recover(HostId dead);
  absl::Status Broken() const;

  Barrier(Segment* segment, HostId me, Handle handle, BarrierState* state)
      : segment_(segment), me_(me), handle_(handle), state_(state) {}

  Segment* segment_;
  HostId me_;
  Handle handle_;
  BarrierState* state_;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SYNC_BARRIER_H_
