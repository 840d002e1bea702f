#include "runtime/os/stream.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "runtime/base/deadline.h"
#include "runtime/base/status_util.h"
#include "runtime/os/cpu.h"

namespace pyhost {
namespace {

constexpr int64_t kMinSpinNanos = 4'000;
constexpr int64_t kMaxSpinNanos = 60'000;  // a wake-up through the kernel costs half of it
constexpr size_t kDirectBytes = 64 * 1024;  // so little is read and written without giving up the interpreter first

// How long spinning is worth it, by descriptor number: a hint, whoever has that number.  0 = not learnt yet.
std::array<std::atomic<uint32_t>, 1024> spin_nanos;

std::atomic<uint32_t>& HintOf(int fd) { return spin_nanos[static_cast<unsigned>(fd) % spin_nanos.size()]; }

int64_t SpinNanos(int fd) {
  const int64_t learnt = HintOf(fd).load(std::memory_order_relaxed);
  return learnt == 0 ? kMaxSpinNanos : std::clamp(learnt, kMinSpinNanos, kMaxSpinNanos);
}

void LearnSpinNanos(int fd, int64_t nanos) {
  HintOf(fd).store(static_cast<uint32_t>(std::clamp(nanos, kMinSpinNanos, kMaxSpinNanos)), std::memory_order_relaxed);
}

absl::Status CallFailed(const char* call, int fd) { return ErrnoStatus(errno, absl::StrCat(call, " descriptor ", fd)); }

// What poll says: ready, not within `milliseconds`, interrupted (it says so even where it may not sleep, when a signal is
// due), or an error.  The last two leave errno.
enum class Polled { kReady, kTimedOut, kInterrupted, kFailed };
Polled Poll(int fd, short events, int milliseconds) {
  pollfd entry = {fd, events, 0};
  const int ready = fd < 0 ? 1 : poll(&entry, 1, milliseconds);  // poll itself leaves out negative numbers
  if (ready > 0) {
    if (fd >= 0 && (entry.revents & POLLNVAL) == 0) return Polled::kReady;
    errno = EBADF;
    return Polled::kFailed;
  }
  if (ready == 0) return Polled::kTimedOut;
  return errno == EINTR ? Polled::kInterrupted : Polled::kFailed;
}

// Tries until `attempt` says true, for as long as spinning for input of `fd` is worth it.  False: it was not true.
template <typename Attempt>
bool Spin(int fd, Deadline deadline, Attempt attempt) {
  if (!SpinningPays()) return false;
  const int64_t start = Deadline::MonotonicNanos();
  const int64_t allowed = SpinNanos(fd);
  int64_t spent = 0;
  do {
    if (attempt()) {
      LearnSpinNanos(fd, std::max(allowed, 2 * spent));
      return true;
    }
    spent = Deadline::MonotonicNanos() - start;
  } while (spent < allowed && !deadline.Expired());
  LearnSpinNanos(fd, allowed * 3 / 4);
  return false;
}

// kTimedOut: not yet.
Polled SpinToPoll(int fd, Deadline deadline) {
  Polled polled = Polled::kTimedOut;
  Spin(fd, deadline, [&] { return (polled = Poll(fd, POLLIN, 0)) != Polled::kTimedOut; });
  return polled;
}

// Sleeps until `events`, in pieces (see Signals).
absl::Status SleepFor(int fd, short events, Wait wait) {
  constexpr absl::Duration kFirst = absl::Milliseconds(50), kLongest = absl::Seconds(4);
  absl::Duration patience = kFirst;
  for (;;) {
    const absl::Duration left = std::min(patience, wait.deadline.Remaining());
    const int64_t milliseconds = absl::ToInt64Milliseconds(absl::Ceil(std::max(left, absl::ZeroDuration()),
                                                                      absl::Milliseconds(1)));
    const int64_t start = Deadline::MonotonicNanos();
    switch (Poll(fd, events, static_cast<int>(milliseconds))) {
      case Polled::kReady:
        // Spinning a little longer would have spared so short a sleep.
        if (Deadline::MonotonicNanos() - start < kMaxSpinNanos) LearnSpinNanos(fd, kMaxSpinNanos);
        return absl::OkStatus();
      case Polled::kFailed:
        return CallFailed("poll", fd);
      case Polled::kTimedOut:
        patience = std::min(patience * 2, kLongest);
        [[fallthrough]];
      case Polled::kInterrupted:
        if (wait.deadline.Expired()) return absl::DeadlineExceededError("the deadline expired");
        if (wait.interruptible != nullptr) PYHOST_RETURN_IF_ERROR(wait.interruptible->OnSignal());
    }
  }
}

absl::Status WaitBlocking(int fd, short events, Wait wait) {
  BlockingScope blocking(wait.interruptible);
  const Polled spun = events == POLLIN ? SpinToPoll(fd, wait.deadline) : Polled::kTimedOut;
  if (spun == Polled::kReady) return absl::OkStatus();
  if (spun == Polled::kInterrupted && wait.interruptible != nullptr) {
    PYHOST_RETURN_IF_ERROR(wait.interruptible->OnSignal());
  }
  return SleepFor(fd, events, wait);
}

bool IsNonBlocking(int fd) { return (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0; }

}  // namespace

absl::Status WaitForInput(int fd, Wait wait) {
  const Polled now = Poll(fd, POLLIN, 0);
  if (now == Polled::kReady) return absl::OkStatus();
  if (now == Polled::kFailed) return CallFailed("poll", fd);
  if (now == Polled::kInterrupted && wait.interruptible != nullptr) {
    PYHOST_RETURN_IF_ERROR(wait.interruptible->OnSignal());
  }
  if (wait.deadline.is_immediate()) return absl::DeadlineExceededError("nothing to read, and not to wait");
  return WaitBlocking(fd, POLLIN, wait);
}

bool SpinForInput(int fd, Deadline deadline, absl::FunctionRef<bool()> elsewhere) {
  constexpr int kLooks = 100;  // about 4 us, several times what a system call takes
  int yields = 4;
  return Spin(fd, deadline, [&] {
    for (int look = 0; look < kLooks; ++look) {
      if (elsewhere()) return true;
      SpinPause();
    }
    // Who is to write may be waiting for this very processor.
    if (yields-- > 0) sched_yield();
    return Poll(fd, POLLIN, 0) != Polled::kTimedOut;
  });
}

// ---- Reading ----------------------------------------------------------------------------------------------------------

ssize_t StreamReader::ReadNow(std::span<std::byte> to) {
  if (is_socket_) {
    BlockingScope blocking(to.size() > kDirectBytes ? wait_.interruptible : nullptr);
    const ssize_t count = recv(fd_, to.data(), to.size(), MSG_DONTWAIT);
    if (count >= 0 || errno != ENOTSOCK) return count;
    is_socket_ = false;
  }
  const Polled polled = Poll(fd_, POLLIN, 0);
  if (polled != Polled::kReady) {
    if (polled == Polled::kTimedOut) errno = EAGAIN;
    return -1;
  }
  // Blocks after all if another process reads the same pipe.
  BlockingScope blocking(wait_.interruptible);
  return read(fd_, to.data(), to.size());
}

ssize_t StreamReader::SpinToRead(std::span<std::byte> to) {
  BlockingScope blocking(wait_.interruptible);
  ssize_t count = -1;
  int error = EAGAIN;  // kept apart from errno, which whoever looks whether spinning pays may change
  // By reading, not by asking whether one could: that would be one more system call for each message.
  Spin(fd_, wait_.deadline, [&] {
    count = recv(fd_, to.data(), to.size(), MSG_DONTWAIT);
    error = errno;
    return count >= 0 || error != EAGAIN;
  });
  if (count < 0) spun_ = error == EAGAIN;
  errno = error;
  return count;
}

absl::Status StreamReader::AfterNothing(int error) {
  if (error == EINTR) return wait_.interruptible == nullptr ? absl::OkStatus() : wait_.interruptible->OnSignal();
  if (error != EAGAIN || (received_ == 0 && IsNonBlocking(fd_))) {
    return ErrnoStatus(error, absl::StrCat("read descriptor ", fd_));
  }
  if (!spun_) return WaitBlocking(fd_, POLLIN, wait_);
  spun_ = false;
  BlockingScope blocking(wait_.interruptible);
  return SleepFor(fd_, POLLIN, wait_);
}

absl::Status StreamReader::Fill(std::span<std::byte> to) {
  while (!to.empty()) {
    ssize_t count = ReadNow(to);
    if (count < 0 && errno == EAGAIN && is_socket_ && !spun_) count = SpinToRead(to);
    if (count == 0) return absl::OutOfRangeError("end of file");
    if (count < 0) {
      PYHOST_RETURN_IF_ERROR(AfterNothing(errno));
      continue;
    }
    spun_ = false;
    received_ += static_cast<size_t>(count);
    to = to.subspan(static_cast<size_t>(count));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> StreamReader::FillIfThere(std::span<std::byte> to) {
  const ssize_t count = ReadNow(to);
  if (count < 0 && errno == EAGAIN) return false;
  if (count > 0) {
    received_ += static_cast<size_t>(count);
    to = to.subspan(static_cast<size_t>(count));
  }
  // What is missing, the end of file and errors.
  PYHOST_RETURN_IF_ERROR(Fill(to));
  return true;
}

// ---- Writing ----------------------------------------------------------------------------------------------------------

namespace {

class Pieces {
 public:
  Pieces(std::span<const std::byte> head, std::span<const std::byte> body)
      : pieces_{{const_cast<std::byte*>(head.data()), head.size()}, {const_cast<std::byte*>(body.data()), body.size()}} {}

  void Skip(size_t count) {
    for (iovec& piece : pieces_) {
      const size_t from_this = std::min(count, piece.iov_len);
      piece.iov_base = static_cast<std::byte*>(piece.iov_base) + from_this;
      piece.iov_len -= from_this;
      count -= from_this;
    }
  }
  size_t left() const { return pieces_[0].iov_len + pieces_[1].iov_len; }
  iovec* data() { return pieces_; }

 private:
  iovec pieces_[2];
};

// A socket can be written without ever blocking.  False for what is no socket.
bool TrySendNow(int fd, Pieces& pieces, ssize_t* count) {
  msghdr message = {};
  message.msg_iov = pieces.data();
  message.msg_iovlen = 2;
  *count = sendmsg(fd, &message, MSG_DONTWAIT);
  return *count >= 0 || errno != ENOTSOCK;
}

}  // namespace

bool AllHasBeenRead(int fd, StreamKind kind) {
  int bytes = -1;
  // Of a socket: what its peer has not taken yet, with the memory that the kernel needs for it.
  return ioctl(fd, kind == StreamKind::kSocket ? SIOCOUTQ : FIONREAD, &bytes) == 0 && bytes == 0;
}

absl::Status WriteAll(int fd, std::span<const std::byte> head, std::span<const std::byte> body, Wait wait, size_t* sent) {
  Pieces pieces(head, body);
  const size_t total = pieces.left();
  bool is_socket = total <= kDirectBytes;
  while (pieces.left() != 0) {
    ssize_t count = -1;
    if (is_socket) is_socket = TrySendNow(fd, pieces, &count);
    if (!is_socket) {
      BlockingScope blocking(wait.interruptible);
      count = writev(fd, pieces.data(), 2);
    }
    if (count < 0 && errno == EAGAIN) {
      if (pieces.left() == total && IsNonBlocking(fd)) {
        errno = EAGAIN;
        return CallFailed("write", fd);
      }
      PYHOST_RETURN_IF_ERROR(WaitBlocking(fd, POLLOUT, wait));
      continue;
    }
    if (count < 0 && errno != EINTR) return CallFailed("write", fd);
    pieces.Skip(static_cast<size_t>(std::max<ssize_t>(count, 0)));
    *sent = total - pieces.left();
    // A blocking write that a signal interrupts says so only if it has written nothing; else it has written less.
    if (pieces.left() != 0 && wait.interruptible != nullptr) PYHOST_RETURN_IF_ERROR(wait.interruptible->OnSignal());
  }
  return absl::OkStatus();
}

}  // namespace pyhost
