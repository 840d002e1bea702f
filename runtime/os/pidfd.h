// Process descriptors (pidfds), and what /proc says of a process.
//
// A pidfd names one life of one process: it never means another process with the same number.  Where a sandbox
// blocks one of the system calls, the error names the call.  Stateless, thread-safe.

#ifndef PYHOST_RUNTIME_OS_PIDFD_H_
#define PYHOST_RUNTIME_OS_PIDFD_H_

#include <sys/types.h>

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/os/unique_fd.h"

namespace pyhost {

// NotFound (with errno ESRCH) when the process is gone and reaped.  Close-on-exec.
absl::StatusOr<UniqueFd> OpenPidfd(pid_t pid);
// NotFound (ESRCH) when the process is gone.
absl::Status SendSignal(int pidfd, int signal);
// A duplicate of descriptor `fd` of that process.  Needs the right to trace it.
absl::StatusOr<UniqueFd> TakeDescriptor(int pidfd, int fd);
// True once the process has ended, reaped or not.
bool PidfdIsReadable(int pidfd);

// How a process that has ended but was not reaped yet ended, as waitpid() will say; nothing when it is no zombie, or the
// kernel does not tell us (another user's process).
std::optional<int> ZombieWaitStatus(pid_t pid);

// Whether the process has a mapping of the file with this device and inode.  True when that cannot be found out.
bool ProcessMaps(pid_t pid, dev_t device, ino_t inode);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_OS_PIDFD_H_
