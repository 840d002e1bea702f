#include "runtime/supervision/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "runtime/base/deadline.h"
#include "runtime/base/status_util.h"
#include "runtime/os/pidfd.h"
#include "runtime/os/unix_socket.h"
#include "runtime/supervision/reaper.h"

namespace pyhost {
namespace {

// How long an exit word may be late after the end of its process: reapers need microseconds, the supervisor, where it is
// the last to know, some tenths of a second.
constexpr int64_t kLateNanos = 1'000'000'000;
// A sleeper looks after the process itself this often.
constexpr absl::Duration kPatience = absl::Milliseconds(100);

// Readable at once, for ever.
absl::StatusOr<UniqueFd> EndedPipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe2 for a sentinel");
  UniqueFd read_end(ends[0]), write_end(ends[1]);
  return read_end;
}

absl::Status NameLimit(const absl::Status& status) {
  if (ErrnoOf(status) != EMFILE) return status;
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  return ErrnoStatus(EMFILE, absl::StrCat("sentinel of a new process: the limit of open descriptors RLIMIT_NOFILE is ",
                                          limit.rlim_cur));
}

}  // namespace

ChildProcess::ChildProcess(Session* session, HostId id, pid_t pid, Reaper reaper, std::string description)
    : session_(session), id_(id), pid_(pid), reaper_(reaper), description_(std::move(description)) {}

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Open(Session* session, HostId id, pid_t pid,
                                                                 Reaper reaper) {
  absl::StatusOr<HostInfo> info = session->segment().hosts().Info(id);
  std::unique_ptr<ChildProcess> child(
      new ChildProcess(session, id, pid, reaper, info.ok() ? info->Describe() : id.ToString()));
  absl::StatusOr<UniqueFd> sentinel = OpenPidfd(pid);
  // The number may have been given to another process only if this one was reaped, and then its record says so.
  child->has_pidfd_ = sentinel.ok() && (reaper == Reaper::kUs || session->segment().hosts().IsRunning(id) ||
                                        !session->segment().hosts().Exit(id).settled());
  if (!child->has_pidfd_ && (sentinel.ok() || ErrnoOf(sentinel.status()) == ESRCH)) sentinel = EndedPipe();
  if (!sentinel.ok()) return NameLimit(sentinel.status());
  child->sentinel_ = *std::move(sentinel);
  return child;
}

std::optional<ExitStatus> ChildProcess::Remember(ExitStatus status) {
  exit_.store(status.Encode(), std::memory_order_release);
  return status;
}

std::optional<ExitStatus> ChildProcess::Poll() {
  if (uint32_t known = exit_.load(std::memory_order_acquire)) return ExitStatus::Decode(known);
  if (closed_) return std::nullopt;
  if (reaper_ == Reaper::kUs) return Reap();
  // What a host writes while it leaves is no end yet: it still exists, and may crash on its last steps.  Nor is an exec:
  // the process goes on.
  const HostTable& hosts = session_->segment().hosts();
  ExitStatus status = hosts.Exit(id_);
  if (status.settled() && !hosts.IsRunning(id_)) return Remember(status);
  return IsGone() ? JudgeGone() : std::nullopt;
}

std::optional<ExitStatus> ChildProcess::Reap() {
  int wait_status = 0;
  pid_t reaped;
  do {
    reaped = waitpid(pid_, &wait_status, WNOHANG);
  } while (reaped < 0 && errno == EINTR);
  if (reaped == 0) return std::nullopt;
  if (reaped == pid_) {
    ExitStatus status = ExitStatusOfWait(wait_status);
    session_->segment().hosts().SetExit(id_, status, /*truth=*/true);
    return Remember(status);
  }
  // ECHILD: the program's own wait took it, or it is not our child (we are a fork of its parent).
  ExitStatus status = session_->segment().hosts().Exit(id_);
  if (status.settled() && IsGone()) return Remember(status);
  return IsGone() ? JudgeGone() : std::nullopt;
}

void ChildProcess::MoveSentinel() {
  absl::StatusOr<UniqueFd> high = DuplicateHigh(sentinel_.get());
  if (high.ok()) sentinel_ = *std::move(high);
}

bool ChildProcess::IsGone() const { return !has_pidfd_ || PidfdIsReadable(sentinel_.get()); }

std::optional<ExitStatus> ChildProcess::JudgeGone() {
  int64_t now = Deadline::MonotonicNanos();
  int64_t since = 0;
  if (gone_since_.compare_exchange_strong(since, now)) return std::nullopt;
  if (now - since < kLateNanos) return std::nullopt;
  session_->segment().hosts().SetExit(id_, {ExitStatus::Kind::kLost, 0}, /*truth=*/true);
  return Remember(session_->segment().hosts().Exit(id_));
}

absl::Status ChildProcess::WaitForSentinel(pyhost::Wait wait) {
  pollfd entry = {sentinel_.get(), POLLIN, 0};
  int timeout = -1;
  if (!wait.deadline.is_never()) {
    int64_t left = absl::ToInt64Milliseconds(absl::Ceil(wait.deadline.Remaining(), absl::Milliseconds(1)));
    timeout = static_cast<int>(std::clamp<int64_t>(left, 0, 1 << 30));
  }
  if (wait.interruptible != nullptr) wait.interruptible->BeginBlocking();
  int ready = poll(&entry, 1, timeout);
  int error = errno;
  if (wait.interruptible != nullptr) wait.interruptible->EndBlocking();
  if (ready >= 0) return absl::OkStatus();
  if (error != EINTR) return ErrnoStatus(error, "poll a sentinel");
  return wait.interruptible != nullptr ? wait.interruptible->OnSignal() : absl::OkStatus();
}

absl::StatusOr<ExitStatus> ChildProcess::Wait(pyhost::Wait wait) {
  for (;;) {
    if (std::optional<ExitStatus> status = Poll()) return *status;
    if (wait.deadline.Expired()) return absl::DeadlineExceededError(absl::StrCat(description_, " is still running"));
    if (reaper_ == Reaper::kUs && !IsGone()) {
      PYHOST_RETURN_IF_ERROR(WaitForSentinel(wait));
      continue;
    }
    pyhost::Wait nap = wait;
    nap.deadline = wait.deadline.AtMost(kPatience);
    absl::Status status = session_->segment().hosts().WaitForExit(id_, nap).status();
    if (!status.ok() && !absl::IsDeadlineExceeded(status)) return status;
  }
}

absl::Status ChildProcess::Signal(int signal) {
  if (!has_pidfd_) return ErrnoStatus(ESRCH, absl::StrCat("signal ", signal, " to ", description_));
  return SendSignal(sentinel_.get(), signal);
}

std::string ChildProcess::ExitReason() const {
  absl::StatusOr<HostInfo> info = session_->segment().hosts().Info(id_);
  uint32_t known = exit_.load(std::memory_order_acquire);
  ExitStatus status = known != 0 ? ExitStatus::Decode(known) : info.ok() ? info->exit : ExitStatus();
  if (!status.ended()) return absl::StrCat(description_, " is running");
  std::string text = absl::StrCat(info.ok() ? info->Describe() : description_, " ", status.ToString());
  bool clean = status.kind == ExitStatus::Kind::kExited && status.value == 0;
  if (info.ok() && !info->running.empty() && !clean) absl::StrAppend(&text, " running ", info->running);
  return text;
}

void ChildProcess::Close() {
  if (std::exchange(closed_, true)) return;
  session_->segment().hosts().Unwatch(id_, session_->me());
  sentinel_.reset();
}

}  // namespace pyhost
