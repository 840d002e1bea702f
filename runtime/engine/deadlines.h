// Deadlines: of the calls that have one, which is over next.  Calls that have ended stay until their time comes: forgetting them at
// once would cost each call a search.
//
// Thread-safe.

#ifndef PYHOST_RUNTIME_ENGINE_DEADLINES_H_
#define PYHOST_RUNTIME_ENGINE_DEADLINES_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <queue>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"
#include "runtime/base/mutex_lock.h"
#include "runtime/broker/call_frame.h"

namespace pyhost {

class Deadlines {
 public:
  static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

  // Nanoseconds of CLOCK_MONOTONIC.
  void Add(CallId call, int64_t nanos) {
    MutexLock lock(mutex_);
    queue_.emplace(nanos, call.value());
  }
  int64_t next() const {
    MutexLock lock(mutex_);
    return queue_.empty() ? kNone : queue_.top().first;
  }
  // Those that are over.
  std::vector<CallId> TakeOver(int64_t now) {
    std::vector<CallId> over;
    MutexLock lock(mutex_);
    for (; !queue_.empty() && queue_.top().first <= now; queue_.pop()) {
      over.push_back(CallId::FromValue(queue_.top().second));
    }
    return over;
  }

  // Calls whose worker is being ended because of their deadline.
  void MarkEnded(CallId call) {
    MutexLock lock(mutex_);
    ended_.insert(call.value());
  }
  bool TakeEnded(CallId call) {
    MutexLock lock(mutex_);
    return ended_.erase(call.value()) != 0;
  }

 private:
  using Entry = std::pair<int64_t, uint64_t>;  // nanoseconds, CallId
  mutable absl::Mutex mutex_;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<uint64_t> ended_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_ENGINE_DEADLINES_H_
