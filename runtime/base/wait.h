// Wait: everything a blocking call needs to know about how it may block.  Passed by value, unchanged,
// from the public edge down to the futex.

#ifndef PYHOST_RUNTIME_BASE_WAIT_H_
#define PYHOST_RUNTIME_BASE_WAIT_H_

#include "absl/status/status.h"
#include "runtime/base/deadline.h"

namespace pyhost {

// Called when a signal interrupted a sleep (EINTR), with no segment lock held.  An error ends the wait
// with that error; OkStatus() continues it with the same deadline.
class Interruptible {
 public:
  virtual ~Interruptible() = default;
  virtual absl::Status OnSignal() = 0;
  // Called right before the first operation that may spin or sleep, and after it: the native module
  // gives up the GIL here and takes it back.  Always called in pairs, on the waiting thread.
  virtual void BeginBlocking() {}
  virtual void EndBlocking() {}
};

struct Wait {
  Deadline deadline = Deadline::Never();
  Interruptible* interruptible = nullptr;  // Not owned; may be null.

  static Wait Forever() { return {}; }
  static Wait Try() { return {Deadline::Now(), nullptr}; }
};

// Calls BeginBlocking/EndBlocking around a scope; null is allowed.
class BlockingScope {
 public:
  explicit BlockingScope(Interruptible* interruptible) : interruptible_(interruptible) {
    if (interruptible_ != nullptr) interruptible_->BeginBlocking();
  }
  ~BlockingScope() {
    if (interruptible_ != nullptr) interruptible_->EndBlocking();
  }
  BlockingScope(const BlockingScope&) = delete;
  BlockingScope& operator=(const BlockingScope&) = delete;

 private:
  Interruptible* interruptible_;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_BASE_WAIT_H_
