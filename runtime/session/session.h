// Session: this process's membership in a pyhost session: the mapped segment, who we are in it, and the
// way to the supervisor.  At most one per process; created lazily by the root, attached in children,
// carried over by fork.
//
// In-process counts of held objects are segment().refs() (segment/handle_refs.h): quiesce it around fork too.
//
// Thread-safe.  Fork: `BeforeFork/AfterForkParent/AfterForkChild` keep the fork rule (runtime/README.md);
// the native module calls them around every fork of the interpreter.  The host id lies in a page that the kernel wipes
// on fork, so a child made behind our back (a raw clone) has no identity until it asks for one.

#ifndef PYHOST_RUNTIME_SESSION_SESSION_H_
#define PYHOST_RUNTIME_SESSION_SESSION_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/segment/host_table.h"
#include "runtime/segment/segment.h"

namespace pyhost {

struct SessionOptions {
  SegmentOptions segment;
  std::string program;   // absolute path of `pyhost`, started as supervisor, servers and children
  std::string name = "MainProcess";
  uint32_t root_flags = static_cast<uint32_t>(HostFlag::kRoot);
};

class Session {
 public:
  // The session of this process, created as a root if there is none.  Starts the supervisor (returns before it
  // is up).  FailedPrecondition when this process lost its identity in a fork that bypassed the hooks.
  static absl::StatusOr<Session*> Ensure(const SessionOptions& options);
  // Null when none was created or attached yet.
  static Session* Current();
  // A child started by a server or a launch joins: adopts its record `me`.
  static absl::StatusOr<Session*> Join(int segment_fd, int control_fd, HostId me, std::string program);

  Segment& segment() { return *segment_; }
  HostId me() const;  // 0 in a process that lost its identity
  const std::string& program() const { return program_; }

  // Sends one datagram with descriptors to the supervisor.  Repairs or replaces a control socket that the
  // program closed; Unavailable, saying so, when the supervisor is gone.
  absl::Status SendToSupervisor(std::string_view bytes, const int* fds, int fd_count);
  bool SupervisorIsGone();

  // Around fork(), on the forking thread.  Before reserves the embryo that duplicates our holds (on failure the
  // fork goes on and the child has no identity; the status says why).
  absl::Status BeforeFork(uint32_t flags, std::string_view name);
  HostId AfterForkParent(pid_t child);  // child < 0: the fork failed
  absl::Status AfterForkChild();

  // Writes our exit code and gives back what we hold.  Called once, last.
  void Leave(int exit_code);

 private:
  Session() = default;
  std::unique_ptr<Segment> segment_;
  std::string program_;
  // (owner adds what it needs)
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SESSION_SESSION_H_
