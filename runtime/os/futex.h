// The futex system call: the only place that makes it.
//
// All futexes are shared between processes (never FUTEX_PRIVATE_FLAG), deadlines are absolute times of
// CLOCK_MONOTONIC.  Thread- and process-safe.

#ifndef PYHOST_RUNTIME_OS_FUTEX_H_
#define PYHOST_RUNTIME_OS_FUTEX_H_

#include <atomic>
#include <cstdint>

#include "runtime/base/deadline.h"

namespace pyhost::futex {

enum class WaitResult {
  kWoken,        // or a spurious wake-up: look again
  kChanged,      // *word was not `expected`
  kTimedOut,
  kInterrupted,  // a signal handler ran (EINTR): the caller decides
};

// Sleeps while *word == expected.  `deadline` may be Never().
WaitResult Wait(const uint32_t* word, uint32_t expected, Deadline deadline);
inline WaitResult Wait(const std::atomic<uint32_t>& word, uint32_t expected, Deadline deadline) {
  return Wait(reinterpret_cast<const uint32_t*>(&word), expected, deadline);
}

// Wakes at most `count` sleepers; returns how many.
int Wake(const uint32_t* word, int count);
inline int Wake(const std::atomic<uint32_t>& word, int count) {
  return Wake(reinterpret_cast<const uint32_t*>(&word), count);
}
int WakeAll(const uint32_t* word);

// Whether this thread has woken somebody, or was woken, since it last spun (BeginSpinning).  The kernel likes to put who is woken on the
// waker's own processor: while one of the two spins there, the other cannot run.
bool MayShareProcessor();
// The same, and false from now on.
bool BeginSpinning();

}  // namespace pyhost::futex

#endif  // PYHOST_RUNTIME_OS_FUTEX_H_
