// Scheduling: what a fork of the calling thread has of policy, priority and niceness.  Stateless, thread-safe.

#ifndef PYHOST_RUNTIME_OS_SCHEDULING_H_
#define PYHOST_RUNTIME_OS_SCHEDULING_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pyhost {

struct Scheduling {
  int policy = 0;    // SCHED_OTHER, SCHED_BATCH, ...
  int priority = 0;  // of a real-time policy; 0 with others
  int nice = 0;

  bool is_realtime() const { return priority > 0; }

  // After SCHED_RESET_ON_FORK a fork has none of the thread's privileges.
  static absl::StatusOr<Scheduling> OfAFork();
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_OS_SCHEDULING_H_
