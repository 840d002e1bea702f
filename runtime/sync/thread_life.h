// ThreadLife: whether a thread of this process has ended, asked without a system call.
//
// A small value that refers to the thread; several may refer to one.  Thread-safe as a shared_ptr is.

#ifndef PYHOST_RUNTIME_SYNC_THREAD_LIFE_H_
#define PYHOST_RUNTIME_SYNC_THREAD_LIFE_H_

#include <atomic>
#include <memory>
#include <utility>

namespace pyhost {

class ThreadLife {
 public:
  ThreadLife() = default;  // of no thread, which has not ended
  static ThreadLife OfThisThread() {
    static thread_local Ender ender;
    return ThreadLife(ender.ended);
  }

  bool ended() const { return ended_ != nullptr && ended_->load(std::memory_order_acquire); }

 private:
  using Flag = std::shared_ptr<std::atomic<bool>>;
  // Its destructor is what the thread does last.
  struct Ender {
    ~Ender() { ended->store(true, std::memory_order_release); }
    Flag ended = std::make_shared<std::atomic<bool>>(false);
  };

  explicit ThreadLife(Flag ended) : ended_(std::move(ended)) {}
  Flag ended_;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SYNC_THREAD_LIFE_H_
