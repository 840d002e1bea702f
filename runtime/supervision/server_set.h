// ServerSet: the fork servers of a session, and the starts that are on their way through them.
//
// Life of a start request, as the supervisor sees it:
//
//   received -> in flight (sent to its server, or waiting for room in its socket) -> forked, or failed -> forgotten
//
// A request stays in flight, with its descriptors, until its server has answered.  A server that dies takes none along:
// another is launched and gets them again.  A fork whose answer was lost is no danger, because only one process can
// adopt a record.  Three deaths without a success in between fail what is in flight, with the last cause.  A server that
// cannot preload the main module says so by its exit code; the next one does without.
//
// Single-threaded, on the supervisor's EventLoop.

#ifndef PYHOST_RUNTIME_SUPERVISION_SERVER_SET_H_
#define PYHOST_RUNTIME_SUPERVISION_SERVER_SET_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/os/launcher.h"
#include "runtime/os/unique_fd.h"
#include "runtime/session/session.h"
#include "runtime/supervision/event_loop.h"
#include "runtime/supervision/host_watch.h"
#include "runtime/supervision/protocol.h"

namespace pyhost {

class ServerSet {
 public:
  // `ticket`: what servers join the session with.  Nothing is owned.
  ServerSet(Segment* segment, SessionTicket ticket, Launcher* launcher, EventLoop* loop, HostWatch* watch);
  ~ServerSet();

  void Start(const ControlMessage& message, std::vector<UniqueFd> fds);
  // Ends the record that stands for the question when the server has a pid, or none can be launched.
  void Warm(const ControlMessage& message, std::vector<UniqueFd> fds);

  // `host` cannot be started: its record says why.
  void Fail(HostId host, const absl::Status& why);

  // A child of ours ended.  False: it was no server of this set.
  bool OnReaped(pid_t pid, ExitStatus status);

  // Lets one server end; what it has not forked yet goes to the next.
  void Stop(HostId server);

  bool Has(HostId host) const;  // its start is in flight
  bool idle() const;  // nothing is in flight
  size_t running() const { return servers_.size(); }
  // Lets all servers end by themselves: their sockets are closed.
  void CloseAll();
  void KillAll();

 private:
  struct Request {
    ControlMessage message;
    std::vector<UniqueFd> fds;
    bool sent = false;
  };
  struct Server {
    uint64_t key = 0;
    ServerSpec spec;
    std::vector<std::string> environment;
    std::vector<int> standard;  // numbers of the descriptors that came with the first request
    HostId id;
    pid_t pid = 0;
    UniqueFd socket;
    EventLoop::Token token = 0;
    int deaths = 0;             // since the last success
    std::map<uint32_t, Request> in_flight;  // by host
  };

  absl::StatusOr<Server*> Find(uint64_t key, Handle payload, const std::vector<UniqueFd>& fds);
  absl::Status Launch(Server* server, const std::vector<UniqueFd>& fds);
  absl::StatusOr<LaunchOptions> OptionsFor(const Server& server, int socket, const std::vector<UniqueFd>& fds);
  void Flush(Server* server);
  void OnMessages(uint64_t key);
  void OnAnswer(Server* server, const ControlMessage& answer);
  void OnDeath(Server* server, ExitStatus status);
  // True when it has ended for a server that leaves the main module to the children; `server` is that one from now on.
  bool LeavesMainToChildren(Server* server, ExitStatus status);
  void Relaunch(Server* server);
  void FailAll(Server* server, const absl::Status& why);
  Server* FindByPid(pid_t pid);

  Segment* const segment_;
  const SessionTicket ticket_;
  Launcher* const launcher_;
  EventLoop* const loop_;
  HostWatch* const watch_;
  std::map<uint64_t, std::unique_ptr<Server>> servers_;  // by key
  bool closing_ = false;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SUPERVISION_SERVER_SET_H_
