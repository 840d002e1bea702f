#include "runtime/os/scheduling.h"

#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>

#include "runtime/base/status_util.h"

namespace pyhost {

absl::StatusOr<Scheduling> Scheduling::OfAFork() {
  Scheduling result;
  errno = 0;
  result.nice = getpriority(PRIO_PROCESS, 0);
  if (errno != 0) return ErrnoStatus(errno, "getpriority");
  const int policy = sched_getscheduler(0);
  sched_param parameters = {};
  if (policy < 0 || sched_getparam(0, &parameters) != 0) return ErrnoStatus(errno, "sched_getscheduler");
  result.policy = policy & ~SCHED_RESET_ON_FORK;
  result.priority = parameters.sched_priority;
  if ((policy & SCHED_RESET_ON_FORK) == 0) return result;
  if (result.is_realtime()) result.policy = SCHED_OTHER;
  result.priority = 0;
  result.nice = std::max(result.nice, 0);
  return result;
}

}  // namespace pyhost
