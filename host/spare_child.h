// SpareChild: a child that a fork server forks before anybody asks for it, so that a start waits for no fork and for no
// first touch of memory: it has the pages that its like come to use (WarmPages), and waits for its orders.  While it gets ready it
// lets everybody else go first, and leaves the rest when its orders come.
//
// It is nobody in the session until it is handed a record:
//
//   forked -> waits -- orders, with the start's descriptors --> adopts the record, closes its socket: a child like any other
//                   -- end of its socket: the server is gone --> leaves without a word
//
// The server gives the record its own holds before it sends the orders, as a fork does.  The record's pid is the child's to
// write: one that dies with its orders unread was never seen by the starter, and the server forks another for the record.
// Used by the server's one thread.

#ifndef PYHOST_HOST_SPARE_CHILD_H_
#define PYHOST_HOST_SPARE_CHILD_H_

#include <sys/types.h>

#include <functional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "runtime/base/ids.h"
#include "runtime/os/unique_fd.h"
#include "runtime/os/warm_pages.h"
#include "runtime/session/session.h"

namespace pyhost::host {

class SpareChild {
 public:
  // The life of a child that has adopted its record; does not return.  `in_time`: it was ready before it was needed.
  using Life = std::function<void(std::vector<UniqueFd> received, bool in_time)>;

  explicit SpareChild(Session* session) : session_(session) {}

  // 0 without one.
  pid_t pid() const { return pid_; }

  // Forks one.  `warm` may be null.  `in_child` runs in it first, to let go of what is the server's.  A fork that fails is
  // no error: then there is none.
  void Fork(const WarmPages* warm, const std::function<void()>& in_child, const Life& life);

  // Orders it to be `host`'s process; then there is none any more.  An error: it is gone.  The socket is at its end when
  // the child has its place, or is gone.
  absl::StatusOr<UniqueFd> HandOver(HostId host, std::span<const int> fds);

  // It has ended without having been handed anything, and was reaped; or it is to: it leaves without a word.
  void Forget();

 private:
  [[noreturn]] void AwaitOrders(UniqueFd socket, const WarmPages* warm, const Life& life);
  // False: orders came before it was done.
  static bool GetReady(int socket, const WarmPages* warm);

  Session* const session_;
  pid_t pid_ = 0;
  UniqueFd socket_;
};

}  // namespace pyhost::host

#endif  // PYHOST_HOST_SPARE_CHILD_H_
