// Event: a flag that hosts wait for.
//
//   word: epoch:31 | set:1
//
// Set() raises the flag and counts the epoch up, so that whoever waited when it was set returns, even when
// it has been cleared again since.  Each step is one atomic operation: nobody's death leaves it half done.
//
// Event is a view: it counts no references.  Thread- and process-safe.

#ifndef PYHOST_RUNTIME_SYNC_EVENT_H_
#define PYHOST_RUNTIME_SYNC_EVENT_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/base/wait.h"

namespace pyhost {

class Segment;
struct EventState;

class Event {
 public:
  static absl::StatusOr<Event> Create(Segment& segment, HostId me);
  static absl::StatusOr<Event> Open(Segment& segment, HostId me, Handle handle);

  Handle handle() const { return handle_; }

  void Set();
  void Clear();
  bool is_set() const;
  // Until set.  DeadlineExceeded, or the interruptible's error.
  absl::Status WaitUntilSet(Wait wait);

 private:
  Event(HostId me, Handle handle, EventState* state) : me_(me), handle_(handle), state_(state) {}

  HostId me_;
  Handle handle_;
  EventState* state_;
};

void RegisterEventKind();

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SYNC_EVENT_H_
