#include "runtime/os/deferred_unmap.h"

#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/base/deadline.h"
#include "runtime/os/futex.h"
#include "runtime/os/pidfd.h"
#include "runtime/os/unique_fd.h"

namespace pyhost {
namespace {

constexpr absl::Duration kPatience = absl::Milliseconds(100);
constexpr size_t kStackBytes = 16 * 1024;
alignas(64) char stack[kStackBytes];
std::atomic<uint32_t> settled{0};  // the other process has no descriptor of this one's any more, or is about to end

// The other process.  System calls alone, and none that the C library wraps: its memory of this thread is in use.
[[gnu::no_sanitize("address", "undefined", "thread")]] int Stay(void* argument) {
  const auto pidfd = static_cast<unsigned>(reinterpret_cast<intptr_t>(argument));
  const bool closed = (pidfd == 0 || syscall(SYS_close_range, 0U, pidfd - 1, 0U) == 0) &&
                      syscall(SYS_close_range, pidfd + 1, UINT_MAX, 0U) == 0;
  const sched_param no_priority = {};
  syscall(SYS_sched_setscheduler, 0, SCHED_IDLE, &no_priority);
  settled.store(1, std::memory_order_release);
  syscall(SYS_futex, &settled, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  pollfd end = {static_cast<int>(pidfd), POLLIN, 0};
  if (closed) syscall(SYS_ppoll, &end, 1, nullptr, nullptr, 0);
  syscall(SYS_exit_group, 0);
  return 0;
}

bool IsSmall() {
  rusage usage = {};
  return getrusage(RUSAGE_SELF, &usage) == 0 && static_cast<size_t>(usage.ru_maxrss) <= kMostDeferred >> 10;
}

}  // namespace

bool DeferUnmap() {
  if (!IsSmall()) return false;
  const absl::StatusOr<UniqueFd> self = OpenPidfd(getpid());
  if (!self.ok()) return false;
  // A signal handler must not run there.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  const pid_t pid = clone(Stay, stack + kStackBytes, CLONE_VM | CLONE_PARENT | SIGCHLD,
                          reinterpret_cast<void*>(static_cast<intptr_t>(self->get())));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return false;
  const Deadline end = Deadline::After(kPatience);
  while (settled.load(std::memory_order_acquire) == 0 && !end.Expired()) futex::Wait(settled, 0, end);
  if (settled.load(std::memory_order_acquire) != 0) return true;
  kill(pid, SIGKILL);  // It was stopped, or killed: nobody is to wait for its descriptors.
  return false;
}

}  // namespace pyhost
