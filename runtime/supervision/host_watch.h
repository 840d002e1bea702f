// HostWatch: the supervisor's eye on every host of its session.  Notices each end and each exec, finds out how it
// came about, has what the host held given back, and ends what must not outlive it.
//
// Life of a watched host:
//
//   watched --pidfd readable--> gone --exit word known, or nobody will tell--> recovered, forgotten
//   watched --life pipe at its end, segment no longer mapped--> another program now: recovered, watched on
//
// Single-threaded, on the supervisor's EventLoop.

#ifndef PYHOST_RUNTIME_SUPERVISION_HOST_WATCH_H_
#define PYHOST_RUNTIME_SUPERVISION_HOST_WATCH_H_

#include <cstdint>
#include <functional>
#include <map>

#include "absl/status/status.h"
#include "runtime/base/ids.h"
#include "runtime/os/unique_fd.h"
#include "runtime/segment/segment.h"
#include "runtime/supervision/event_loop.h"
#include "runtime/segment/host_table.h"

namespace pyhost {

class HostWatch {
 public:
  // `on_end` is called after each host's recovery.  None of the pointers is owned.
  HostWatch(Segment* segment, HostId me, EventLoop* loop, std::function<void(HostId)> on_end);

  // Watches `id`, whose record knows its pid.  `life`: the read end of its life pipe, or none.  Repeating is harmless.
  void Add(HostId id, UniqueFd life);

  // How a child of the calling process ended that may be a host (it was handed on to us by its dead server).
  void OnReaped(pid_t pid, ExitStatus status);

  // What keeps a session going: hosts that are neither supervisor nor servers, and programs that end with a host.
  size_t user_hosts() const { return user_hosts_; }

  // Gives back what a host held that is gone; its exit word is set.
  void Recover(HostId id);

 private:
  struct Watched {
    pid_t pid = 0;
    bool counts = false;   // in user_hosts_
    HostId parent;         // of a program that a host has become: with whom it ends; of others none
    UniqueFd process;      // pidfd
    UniqueFd life;
    EventLoop::Token process_token = 0;
    EventLoop::Token life_token = 0;
  };

  void WatchProcess(HostId id, const HostInfo& info, Watched* watched);
  void WatchLife(HostId id, UniqueFd life, Watched* watched);
  // Instead of a pidfd, where none can be had (no descriptor is left, say): looks at the process from time to time.
  void LookLater(HostId id);
  void OnGone(HostId id);
  void OnLifeEnd(HostId id);
  void OnExec(HostId id, Watched* watched);
  // Waits for whoever reaps it to write how it ended, for a while.
  void AwaitReaper(HostId id, int tries_left);
  void Finish(HostId id);
  // What others have to do with it that is in the session no more.
  void Bury(HostId id);
  void Uncount(Watched* watched);
  void EndOrphansOf(HostId parent);
  void EndOrphan(HostId id);
  void Kill(HostId id, int signal);

  Segment* const segment_;
  const HostId me_;
  EventLoop* const loop_;
  const std::function<void(HostId)> on_end_;
  std::map<uint32_t, Watched> watched_;  // by HostId
  size_t user_hosts_ = 0;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SUPERVISION_HOST_WATCH_H_
