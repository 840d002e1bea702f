#include "runtime/supervision/reaper.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "runtime/base/status_util.h"
#include "runtime/os/unix_socket.h"

namespace pyhost {

ExitStatus ExitStatusOfWait(int wait_status) {
  if (WIFSIGNALED(wait_status)) return {ExitStatus::Kind::kSignaled, WTERMSIG(wait_status)};
  return {ExitStatus::Kind::kExited, WEXITSTATUS(wait_status)};
}

absl::StatusOr<UniqueFd> OpenChildSignal() {
  // Inherited from a program that ignores it, it would have the kernel reap, and nobody learn how a child ended.
  signal(SIGCHLD, SIG_DFL);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  if (sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return ErrnoStatus(errno, "sigprocmask");
  UniqueFd fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) return ErrnoStatus(errno, "signalfd");
  return MoveToHighNumber(std::move(fd));
}

void ReapChildren(int child_signal, const std::function<void(pid_t, ExitStatus)>& on_end) {
  signalfd_siginfo info;
  while (read(child_signal, &info, sizeof(info)) > 0) {
  }
  int wait_status = 0;
  pid_t pid;
  while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0 || (pid < 0 && errno == EINTR)) {
    if (pid > 0) on_end(pid, ExitStatusOfWait(wait_status));
  }
}

}  // namespace pyhost
