#include "modules/native/queue_poller.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <utility>

#include "runtime/base/mutex_lock.h"
#include "runtime/base/status_util.h"
#include "runtime/os/unique_fd.h"

namespace pyhost::native {

struct QueuePoller::Shared {
  Shared(Queue polled, UniqueFd fd) : queue(std::move(polled)), descriptor(std::move(fd)), process(getpid()) {}

  void MakeReadable() {
    // Fails only when the counter is full, and then it is readable.
    [[maybe_unused]] const int written = eventfd_write(descriptor.get(), 1);
  }
  void Drain() {
    eventfd_t value = 0;
    [[maybe_unused]] const int read = eventfd_read(descriptor.get(), &value);  // fails when it is drained already
  }

  // Constant after construction.
  Queue queue;
  const UniqueFd descriptor;
  const pid_t process;
  pthread_t thread{};

  std::atomic<bool> stopped{false};
  absl::Mutex mutex;
  bool looked_empty ABSL_GUARDED_BY(mutex) = false;
};

namespace {

// Runs `body` in a thread that no signal is delivered to: handlers belong to Python's threads.
int StartSilentThread(pthread_t* thread, void* (*body)(void*), void* argument) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int error = pthread_create(thread, nullptr, body, argument);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return error;
}

}  // namespace

QueuePoller::QueuePoller(std::unique_ptr<Shared> shared) : shared_(std::move(shared)) {}

absl::StatusOr<std::unique_ptr<QueuePoller>> QueuePoller::Start(Queue queue) {
  UniqueFd descriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!descriptor.valid()) return ErrnoStatus(errno, "eventfd for polling a queue");
  auto shared = std::make_unique<Shared>(std::move(queue), std::move(descriptor));
  const int error = StartSilentThread(&shared->thread, Run, shared.get());
  if (error != 0) return ErrnoStatus(error, "start of the thread that polls a queue");
  return std::unique_ptr<QueuePoller>(new QueuePoller(std::move(shared)));
}

QueuePoller::~QueuePoller() {
  if (!InThisProcess()) {
    // The thread may have held the mutex when the process was forked; so the copy is left as it is.
    close(shared_.release()->descriptor.get());
    return;
  }
  {
    MutexLock lock(shared_->mutex);
    shared_->stopped.store(true);
  }
  shared_->queue.WakeConsumers();
  pthread_join(shared_->thread, nullptr);
}

bool QueuePoller::InThisProcess() const { return shared_->process == getpid(); }

int QueuePoller::descriptor() const { return shared_->descriptor.get(); }

void QueuePoller::LookedEmpty() {
  MutexLock lock(shared_->mutex);
  shared_->Drain();
  shared_->looked_empty = true;
}

void* QueuePoller::Run(void* argument) {
  Shared& shared = *static_cast<Shared*>(argument);
  const auto may_look = [&shared] {
    shared.mutex.AssertHeld();
    return shared.looked_empty || shared.stopped.load();
  };
  while (!shared.stopped.load()) {
    const absl::Status readable = shared.queue.WaitReadable(Wait::Forever(), shared.stopped);
    MutexLock lock(shared.mutex);
    shared.looked_empty = false;
    shared.MakeReadable();
    if (!readable.ok()) break;  // it stays readable: the get() that is tried then says why
    shared.mutex.Await(absl::Condition(&may_look));
  }
  return nullptr;
}

}  // namespace pyhost::native
