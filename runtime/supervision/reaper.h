// Reaper: learns of the end of one's own children, and how they ended.  What supervisor and fork servers share.
//
// SIGCHLD is taken through a signalfd, so the signal stays blocked in the process that reaps.  Single-threaded.

#ifndef PYHOST_RUNTIME_SUPERVISION_REAPER_H_
#define PYHOST_RUNTIME_SUPERVISION_REAPER_H_

#include <sys/types.h>

#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/os/unique_fd.h"
#include "runtime/segment/host_table.h"

namespace pyhost {

// From a status as waitpid() gives it.
ExitStatus ExitStatusOfWait(int wait_status);

// Blocks SIGCHLD and opens a descriptor that is readable when it is pending.
absl::StatusOr<UniqueFd> OpenChildSignal();

// Empties `child_signal` and reaps every child that has ended, in one go: signals do not queue.
void ReapChildren(int child_signal, const std::function<void(pid_t, ExitStatus)>& on_end);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SUPERVISION_REAPER_H_
