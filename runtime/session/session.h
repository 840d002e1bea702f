// Session: this process's membership in a pyhost session: the mapped segment, who we are in it, and the
// way to the supervisor.  At most one per process; created lazily by the root, joined by children, carried over by fork.
//
// Thread-safe.  Fork: the three fork functions keep the fork rule (runtime/README.md); the native module calls them
// around every fork of the interpreter.  The host id lies in a page that the kernel wipes on fork, so a child made behind
// our back (a raw clone, vfork and exec) has no identity and touches nothing.
//
// Our descriptors have high numbers, are close-on-exec, and are checked before each use, because programs close or
// reuse what they find; a lost one is taken back from the supervisor, which has them all.
//
// The life pipe: its write end is ours alone, close-on-exec; the supervisor has the read end.  Its end-of-file while
// we live means that we became another program (exec), which the supervisor then verifies.

#ifndef PYHOST_RUNTIME_SESSION_SESSION_H_
#define PYHOST_RUNTIME_SESSION_SESSION_H_

#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/base/wait.h"
#include "runtime/os/fork_wiped_page.h"
#include "runtime/os/launcher.h"
#include "runtime/os/unique_fd.h"
#include "runtime/segment/host_table.h"
#include "runtime/segment/segment.h"
#include "runtime/os/guarded_descriptor.h"
#include "runtime/supervision/protocol.h"
#include "runtime/supervision/server_profile.h"

namespace pyhost {

struct SessionOptions {
  SegmentOptions segment;
  std::string program;   // absolute path of `pyhost`, started as supervisor, servers and children
  std::string name = "MainProcess";
  uint32_t root_flags = static_cast<uint32_t>(HostFlag::kRoot);
  Launcher* launcher = nullptr;  // of the supervisor; null = the real one
};

// What a process needs to join a session; travels on command lines.
struct SessionTicket {
  int segment_fd = -1;
  int control_fd = -1;
  HostId me;
  HostId supervisor;
  HostId root;
  int control_number = -1;  // of the control socket in the supervisor
  int segment_number = -1;
  ServerProfile profile;    // of the session's servers
  std::string program;

  // Command-line words, one for each member, and back.  InvalidArgument names the bad word; words of other modes are
  // left alone.
  std::vector<std::string> ToArguments() const;
  static absl::StatusOr<SessionTicket> FromArguments(int argc, char** argv);
};

class Session {
 public:
  // The session of this process, created as a root if there is none.  Starts the supervisor (returns before it
  // is up).  FailedPrecondition when this process lost its identity in a fork that bypassed the hooks.
  static absl::StatusOr<Session*> Ensure(const SessionOptions& options);
  // Null when none was created or joined yet.
  static Session* Current();
  // A child or server joins: takes the ticket's descriptors over and adopts the record `ticket.me`.
  static absl::StatusOr<Session*> Join(const SessionTicket& ticket);

  Segment& segment() { return *segment_; }
  HostId me() const { return *identity_; }  // none in a process that lost its identity
  HostId supervisor() const { return supervisor_; }
  HostId root() const { return root_; }
  const std::string& program() const { return program_; }
  const ServerProfile& profile() const { return profile_; }

  // A ticket for `child`, whose descriptors are ours, checked: to be passed on under the same numbers.
  absl::StatusOr<SessionTicket> TicketFor(HostId child);

  // The segment's file, opened anew (read-only, close-on-exec): something that all of the session can flock().
  absl::StatusOr<UniqueFd> OpenSegmentFile();

  // Sends one datagram with descriptors to the supervisor.  Repairs a control socket that the program closed;
  // Unavailable, saying so, when the supervisor is gone.
  absl::Status SendToSupervisor(const ControlMessage& message, std::span<const int> fds, Wait wait);
  bool SupervisorIsGone();

  // Around fork(), on the forking thread.  They do nothing in a process without a session.  Before reserves the embryo
  // that duplicates our holds (on failure the fork goes on and the child has no identity; the status says why).
  static absl::Status BeforeFork();
  // Returns the child's id (none when it has no identity).
  static HostId AfterForkParent();
  static absl::Status AfterForkChild();

  // For who forks knowing more than the hooks: before BeforeFork, what the child is to be called (and more HostFlags);
  void NameNextFork(std::string_view name, uint32_t flags) { next_name_ = name, next_flags_ = flags; }
  // or which embryo it is to be, with the holds that has already and ours;
  void PrepareFork(HostId embryo) { prepared_ = embryo; }
  // or that it will be nobody before it takes its place: with the parent's descriptors, and what it holds it holds in vain;
  void PrepareUnbornFork() { unborn_ = true; }
  // and what fork() returned, before AfterForkParent.  Who prepared an embryo ends it when the fork failed.
  void NoteForkResult(pid_t child) { fork_result_ = child; }
  // What BeforeFork said, and after AfterForkParent who the child is.
  const absl::Status& fork_status() const { return fork_status_; }
  HostId last_forked() const { return last_forked_; }

  // In such a child, once it is told who it is to be.  `embryo` has the holds of the parent already.  An error: another one
  // is that, or nobody any more.
  absl::Status TakePlace(HostId embryo);

  // Called once, last: writes our exit code, which stands where no reaper of ours lives to write a better one.  What we
  // hold is given back when we are gone, by the supervisor: until then threads of ours may still be at it.
  void Leave(int exit_code);

  // Ends the life of an embryo that never became a process: its record says `status` and `reason`, what it was to hold is
  // given back.
  void CancelEmbryo(HostId embryo, ExitStatus status, std::string_view reason);

 private:
  Session() = default;
  static absl::StatusOr<std::unique_ptr<Session>> Create(const SessionOptions& options);
  absl::Status TakeIdentity(HostId me);
  absl::Status LaunchSupervisor(Launcher& launcher, int supervisor_end);
  // Tells the supervisor to watch us, with the read end of a new life pipe.
  absl::Status Announce();
  absl::Status Repair(GuardedDescriptor* descriptor, int number_there, std::string_view what);
  // A duplicate of one of our descriptors, which the supervisor has too.  Takes no lock.
  absl::StatusOr<UniqueFd> TakeFromSupervisor(int number_there, std::string_view what);
  // From now on the segment has its descriptor back whatever the program closes.
  void GuardSegment();
  absl::Status ReserveEmbryo();
  HostId SettleFork();
  void SettleForkedEmbryos();

  // Constant after creation.
  std::unique_ptr<Segment> segment_;
  std::unique_ptr<ForkWipedPage> page_;
  HostId* identity_ = nullptr;  // in page_
  HostId supervisor_;
  HostId root_;
  std::string program_;
  ServerProfile profile_;
  int control_number_ = -1;
  int segment_number_ = -1;

  // Guarded by descriptors_mutex_.
  std::mutex descriptors_mutex_;
  GuardedDescriptor control_;
  GuardedDescriptor segment_file_;
  GuardedDescriptor life_;

  // Used by the forking thread only, between BeforeFork and AfterFork (the creation lock is held), and PrepareFork.
  HostId prepared_;
  bool unborn_ = false;
  std::string next_name_;
  uint32_t next_flags_ = 0;
  pid_t fork_result_ = 0;  // 0 = not told
  bool was_prepared_ = false;
  absl::Status fork_status_;
  HostId last_forked_;
  HostId embryo_;
  HostId parent_;
  struct ForkedEmbryo {
    HostId id;
    int64_t since;  // nanoseconds of CLOCK_MONOTONIC
  };
  std::vector<ForkedEmbryo> forked_;  // forks whose outcome we were not told
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SESSION_SESSION_H_
