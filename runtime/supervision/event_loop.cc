#include "runtime/supervision/event_loop.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

#include "runtime/base/deadline.h"
#include "runtime/base/status_util.h"
#include "runtime/os/unix_socket.h"

namespace pyhost {

absl::StatusOr<std::unique_ptr<EventLoop>> EventLoop::Create() {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return ErrnoStatus(errno, "epoll_create1");
  PYHOST_ASSIGN_OR_RETURN(epoll, MoveToHighNumber(std::move(epoll)));
  return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll)));
}

absl::StatusOr<EventLoop::Token> EventLoop::Watch(int fd, std::function<void()> callback) {
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u64 = next_token_;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return ErrnoStatus(errno, "epoll_ctl(EPOLL_CTL_ADD)");
  watched_[next_token_] = {fd, std::move(callback)};
  return next_token_++;
}

void EventLoop::WantWritable(Token token, bool wanted) {
  auto found = watched_.find(token);
  if (found == watched_.end()) return;
  epoll_event event = {};
  event.events = wanted ? EPOLLIN | EPOLLOUT : EPOLLIN;
  event.data.u64 = token;
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, found->second.fd, &event);
}

void EventLoop::Forget(Token token) {
  auto found = watched_.find(token);
  if (found == watched_.end()) return;
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found->second.fd, nullptr);
  watched_.erase(found);
}

void EventLoop::After(absl::Duration delay, std::function<void()> callback) {
  timers_.emplace(Deadline::MonotonicNanos() + absl::ToInt64Nanoseconds(delay), std::move(callback));
}

int EventLoop::MillisecondsToNextTimer() const {
  if (timers_.empty()) return -1;
  int64_t nanos = timers_.begin()->first - Deadline::MonotonicNanos();
  return static_cast<int>(std::clamp<int64_t>((nanos + 999'999) / 1'000'000, 0, INT_MAX));
}

void EventLoop::RunDueTimers() {
  int64_t now = Deadline::MonotonicNanos();
  while (!timers_.empty() && timers_.begin()->first <= now) {
    std::function<void()> callback = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    callback();
  }
}

absl::Status EventLoop::RunOnce() {
  epoll_event events[64];
  int count = epoll_wait(epoll_.get(), events, 64, MillisecondsToNextTimer());
  if (count < 0 && errno != EINTR) return ErrnoStatus(errno, "epoll_wait");
  for (int i = 0; i < count; ++i) {
    const Token token = events[i].data.u64;  // copied: the struct is packed
    auto found = watched_.find(token);
    if (found == watched_.end()) continue;
    std::function<void()> callback = found->second.callback;  // it may forget itself
    callback();
  }
  RunDueTimers();
  return absl::OkStatus();
}

}  // namespace pyhost
