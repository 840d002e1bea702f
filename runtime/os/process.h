// Facts about processes, as the kernel knows them (/proc).
//
// A process is named by its pid and its start time together: pids are reused, start times (in clock ticks
// since boot) are not, in practice.  Thread-safe.

#ifndef PYHOST_RUNTIME_OS_PROCESS_H_
#define PYHOST_RUNTIME_OS_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"

namespace pyhost {

struct ProcessStat {
  char state = '?';         // field 3: 'R', 'S', 'T', 'Z' (zombie), 'X' (dead), ...
  pid_t parent = 0;         // field 4
  uint64_t start_time = 0;  // field 22

  bool ended() const { return state == 'Z' || state == 'X' || state == 'x'; }
};

// Parses the text of /proc/<pid>/stat.  The command name in it may contain spaces and parentheses.
absl::StatusOr<ProcessStat> ParseProcessStat(std::string_view text);

// NotFound when there is no such process.
absl::StatusOr<ProcessStat> GetProcessStat(pid_t pid);

// True when the process that had this pid and start time has ended: no such pid, a zombie, or a pid that another
// process has by now.  `start_time` 0 = unknown, then any living process counts.  When the kernel tells
// nothing (no /proc), only a missing pid counts as gone.
bool ProcessIsGone(pid_t pid, uint64_t start_time);

// After a SIGSTOP: until the process has stopped or ended.  Not for longer than a tenth of a second.
void AwaitStopped(pid_t pid);
// Bytes of memory that this process has for itself alone: resident, without what is mapped from files or shared with
// others.  0 when the kernel does not say.
uint64_t PrivateMemoryBytes();

// Identifies the pid namespace of this process: a pid means the same to two processes only if this is the
// same for both.  0 when the kernel does not say.
uint64_t PidNamespace();

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_OS_PROCESS_H_
