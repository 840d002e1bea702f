// QueuePoller: a descriptor of this process that is readable while something is in a queue, for select, poll, epoll.
//
// A producer cannot know who polls, so a thread waits at the queue as a consumer would, and makes the descriptor
// readable.  Whoever finds the queue empty calls LookedEmpty():
//
//   thread:          1. wait until the queue is readable   2. write the descriptor   3. wait for LookedEmpty, go to 1
//   LookedEmpty():   1. drain the descriptor               2. let the thread go on
//
// A message that comes between the look and LookedEmpty() is found by the thread's next look: none is missed.  The
// descriptor may be readable for nothing, when another process took the message.
//
// Belongs to the process that made it: in a forked child, where the thread is not, all that works is the destructor,
// which closes the child's copy of the descriptor.  Thread-safe.  Needs no GIL and takes none.

#ifndef PYHOST_MODULES_NATIVE_QUEUE_POLLER_H_
#define PYHOST_MODULES_NATIVE_QUEUE_POLLER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "runtime/queue/queue.h"

namespace pyhost::native {

class QueuePoller {
 public:
  // The caller keeps holding the queue while the poller lives.
  static absl::StatusOr<std::unique_ptr<QueuePoller>> Start(Queue queue);
  // Ends the thread.
  ~QueuePoller();
  QueuePoller(const QueuePoller&) = delete;
  QueuePoller& operator=(const QueuePoller&) = delete;

  bool InThisProcess() const;
  int descriptor() const;
  void LookedEmpty();

 private:
  struct Shared;
  explicit QueuePoller(std::unique_ptr<Shared> shared);
  static void* Run(void* shared);

  std::unique_ptr<Shared> shared_;
};

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_QUEUE_POLLER_H_
