// Supervisor: one process a session, without an interpreter.  It watches every host, launches and restarts fork
// servers, passes starts on to them, writes exit words, gives back what the dead held, ends orphaned daemons and pool
// workers, and ends itself when no host is left.  See README.md for what happens when it dies itself.
//
// Single-threaded; never waits for anything but its epoll.

#ifndef PYHOST_RUNTIME_SUPERVISION_SUPERVISOR_H_
#define PYHOST_RUNTIME_SUPERVISION_SUPERVISOR_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/os/launcher.h"
#include "runtime/os/unique_fd.h"
#include "runtime/segment/segment.h"
#include "runtime/session/session.h"
#include "runtime/supervision/event_loop.h"
#include "runtime/supervision/host_watch.h"
#include "runtime/supervision/server_set.h"

namespace pyhost {

class Supervisor {
 public:
  // `ticket.me` is the supervisor's own record; its descriptors are kept open for hosts that lost theirs.
  // `control`: our end of the control socket.  `launcher` is not owned.
  static absl::StatusOr<std::unique_ptr<Supervisor>> Create(const SessionTicket& ticket, UniqueFd control,
                                                            Launcher* launcher);
  // Returns when no host is left.
  absl::Status Run();
  // Waits until something happens, and sees to it.
  absl::Status RunOnce();

 private:
  Supervisor(const SessionTicket& ticket, UniqueFd control);

  absl::Status Watch();
  void OnControl();
  void OnMessage(const ControlMessage& message, std::vector<UniqueFd> fds);
  void OnChildren();
  void SettleEmbryosOf(HostId parent);
  bool IsUnborn(HostId id) const;
  // Ends the session when nobody is left in it and nobody is on the way.
  void ConsiderEnd();
  absl::Status EndServers();

  const SessionTicket ticket_;
  UniqueFd control_;
  EventLoop::Token control_token_ = 0;
  UniqueFd children_;  // signalfd
  std::unique_ptr<Segment> segment_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<HostWatch> watch_;
  std::unique_ptr<ServerSet> servers_;
  bool done_ = false;
  std::vector<HostId> expected_forks_;  // forks of dead hosts that may still say who they are
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SUPERVISION_SUPERVISOR_H_
