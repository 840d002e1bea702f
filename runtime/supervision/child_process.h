// ChildProcess: what the starter of a process keeps of it: its id, pid, sentinel, and how it ended.
//
// Two kinds.  One is reaped by its fork server or by the supervisor: its exit word tells.  The other is a child of
// our own (method fork, a launch): we reap it, and where the program itself was quicker (waitpid(-1)), the exit word
// has what the child wrote before it left, or what the supervisor saw.
//
// Thread-safe, but for Close().  The record stays readable until Close().

#ifndef PYHOST_RUNTIME_SUPERVISION_CHILD_PROCESS_H_
#define PYHOST_RUNTIME_SUPERVISION_CHILD_PROCESS_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/wait.h"
#include "runtime/os/unique_fd.h"
#include "runtime/segment/host_table.h"
#include "runtime/session/session.h"

namespace pyhost {

class ChildProcess {
 public:
  enum class Reaper { kServer, kUs };

  // Opens the sentinel.  EMFILE names the limit.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Open(Session* session, HostId id, pid_t pid, Reaper reaper);
  ~ChildProcess() { Close(); }
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  HostId id() const { return id_; }
  pid_t pid() const { return pid_; }
  // Readable when the process has ended: a pidfd, or a pipe at its end.  Close-on-exec.  -1 after Close().
  int sentinel() const { return sentinel_.get(); }
  // From now on it has a high number, for who leaves the low ones to others; where none is free it stays.
  void MoveSentinel();

  // Nothing while it runs.
  std::optional<ExitStatus> Poll();
  // DeadlineExceeded, or the interruptible's error.
  absl::StatusOr<ExitStatus> Wait(pyhost::Wait wait);
  // NotFound (ESRCH) when it has ended.
  absl::Status Signal(int signal);
  // "host 3 'Process-2' (pid 811) killed by SIGSEGV running brain:plan"
  std::string ExitReason() const;
  // Gives the record and the sentinel back.  Idempotent.
  void Close();

 private:
  ChildProcess(Session* session, HostId id, pid_t pid, Reaper reaper, std::string description);

  std::optional<ExitStatus> Remember(ExitStatus status);
  std::optional<ExitStatus> Reap();
  // It is gone, and its exit word is late: Lost after a while.
  std::optional<ExitStatus> JudgeGone();
  absl::Status WaitForSentinel(pyhost::Wait wait);
  bool IsGone() const;

  Session* const session_;
  const HostId id_;
  const pid_t pid_;
  const Reaper reaper_;
  const std::string description_;
  UniqueFd sentinel_;
  bool has_pidfd_ = false;
  bool closed_ = false;
  std::atomic<uint32_t> exit_{0};        // ExitStatus::Encode(), once known
  std::atomic<int64_t> gone_since_{0};   // nanoseconds of CLOCK_MONOTONIC
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SUPERVISION_CHILD_PROCESS_H_
