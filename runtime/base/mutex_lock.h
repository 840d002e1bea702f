// MutexLock, LockMutex, UnlockMutex: absl::Mutex by the names that the installed Abseil has for it.  Those of 2022 are
// deprecated in those of 2025 and later, which have others: this file is the one place that knows.
//
// Thread safety: as absl::Mutex.

#ifndef PYHOST_RUNTIME_BASE_MUTEX_LOCK_H_
#define PYHOST_RUNTIME_BASE_MUTEX_LOCK_H_

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "runtime/base/long_wait.h"

#if defined(__SANITIZE_THREAD__)
#define PYHOST_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PYHOST_THREAD_SANITIZER 1
#endif
#endif
#ifdef PYHOST_THREAD_SANITIZER
extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);
#endif

namespace pyhost {

// ThreadSanitizer cannot see the order that a lock makes when the installed Abseil is not instrumented, as a
// distribution's is not: it is told.
inline void TellSanitizerLocked([[maybe_unused]] void* mutex) {
#ifdef PYHOST_THREAD_SANITIZER
  __tsan_acquire(mutex);
#endif
}
inline void TellSanitizerUnlocking([[maybe_unused]] void* mutex) {
#ifdef PYHOST_THREAD_SANITIZER
  __tsan_release(mutex);
#endif
}

// Templates, as only a dependent name may be missing.
template <typename AnyMutex>
bool TryLockRaw(AnyMutex& mutex) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if constexpr (requires { mutex.try_lock(); }) {
    return mutex.try_lock();
  } else {
    return mutex.TryLock();
  }
}
template <typename AnyMutex>
void LockRaw(AnyMutex& mutex) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if constexpr (requires { mutex.lock(); }) {
    mutex.lock();
  } else {
    mutex.Lock();
  }
}
template <typename AnyMutex>
void UnlockRaw(AnyMutex& mutex) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if constexpr (requires { mutex.unlock(); }) {
    mutex.unlock();
  } else {
    mutex.Unlock();
  }
}

template <typename AnyMutex>
void LockMutex(AnyMutex& mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  while (!TryLockRaw(mutex)) {
    // Only until it is free: who has it may want what is taken back here.
    const LongWait wait;
    LockRaw(mutex);
    UnlockRaw(mutex);
  }
  TellSanitizerLocked(&mutex);
}

template <typename AnyMutex>
void UnlockMutex(AnyMutex& mutex) ABSL_UNLOCK_FUNCTION(mutex) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  TellSanitizerUnlocking(&mutex);
  UnlockRaw(mutex);
}

// Holds a mutex for a scope.
class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(absl::Mutex& mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) : mutex_(mutex) { LockMutex(mutex_); }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { UnlockMutex(mutex_); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  absl::Mutex& mutex_;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_BASE_MUTEX_LOCK_H_
