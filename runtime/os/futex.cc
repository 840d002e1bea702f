#include "runtime/os/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <utility>

namespace pyhost::futex {
namespace {

thread_local bool may_share_processor = false;

}  // namespace

WaitResult Wait(const uint32_t* word, uint32_t expected, Deadline deadline) {
  timespec until;
  timespec* timeout = nullptr;
  if (!deadline.is_never()) {
    until = deadline.ToMonotonicTimespec();
    timeout = &until;
  }
  // FUTEX_WAIT_BITSET, because its time-out is absolute (FUTEX_WAIT's is relative).
  if (syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected, timeout, nullptr, FUTEX_BITSET_MATCH_ANY) == 0) {
    may_share_processor = true;
    return WaitResult::kWoken;
  }
  switch (errno) {
    case EAGAIN: return WaitResult::kChanged;
    case ETIMEDOUT: return WaitResult::kTimedOut;
    case EINTR: return WaitResult::kInterrupted;
    default: return WaitResult::kWoken;  // our own bug at worst: the caller looks again
  }
}

int Wake(const uint32_t* word, int count) {
  const long woken = syscall(SYS_futex, word, FUTEX_WAKE, count, nullptr, nullptr, 0);
  if (woken > 0) may_share_processor = true;
  return woken < 0 ? 0 : static_cast<int>(woken);
}

int WakeAll(const uint32_t* word) { return Wake(word, INT_MAX); }

bool MayShareProcessor() { return may_share_processor; }

bool BeginSpinning() { return std::exchange(may_share_processor, false); }

}  // namespace pyhost::futex
