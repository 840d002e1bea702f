// EventLoop: descriptors and timers of one single-threaded process, on epoll.
//
// Not thread-safe: everything happens on the thread that calls RunOnce.  A callback may add and forget anything,
// itself included; after Forget a callback never runs again, even if its event was already reported.

#ifndef PYHOST_RUNTIME_SUPERVISION_EVENT_LOOP_H_
#define PYHOST_RUNTIME_SUPERVISION_EVENT_LOOP_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/os/unique_fd.h"

namespace pyhost {

class EventLoop {
 public:
  using Token = uint64_t;  // never 0

  static absl::StatusOr<std::unique_ptr<EventLoop>> Create();

  // Calls `callback` whenever `fd` is readable (or has ended); does not own `fd`.
  absl::StatusOr<Token> Watch(int fd, std::function<void()> callback);
  // Also (or no longer) when it is writable.
  void WantWritable(Token token, bool wanted);
  // Before `fd` is closed.  Unknown tokens, 0 included, are ignored.
  void Forget(Token token);

  void After(absl::Duration delay, std::function<void()> callback);

  // Waits for events or the next timer, and runs what is due.
  absl::Status RunOnce();

 private:
  struct Watched {
    int fd;
    std::function<void()> callback;
  };

  explicit EventLoop(UniqueFd epoll) : epoll_(std::move(epoll)) {}
  int MillisecondsToNextTimer() const;
  void RunDueTimers();

  UniqueFd epoll_;
  Token next_token_ = 1;
  std::map<Token, Watched> watched_;
  std::multimap<int64_t, std::function<void()>> timers_;  // by nanoseconds of CLOCK_MONOTONIC
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SUPERVISION_EVENT_LOOP_H_
