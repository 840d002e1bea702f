// PoolCore: all of a WorkerPool that is no template: pickle bytes in, pickle bytes out.
//
// Life of a call: Submit registers it with the CallClient (an id, a group) and pushes it to a lane; a worker takes it, runs it and
// pushes the reply; whoever waits or polls drains the reply queue and delivers replies, undecoded, to their groups; the
// owner of the submission takes it from there.
//
// Threads.  Everything may be called from any thread.  Requests of scripts are served by the thread that polled last (`home_`; any
// thread that waits, while nobody has polled or when that thread has ended), from Poll() or while it waits for an outcome.
//
// Lock order: the client's lock, then mutex_ (OnNotice).  No lock is held while anything of the engine's is called.
//
// Whatever is called of the engine's may end the pool: who calls it holds the core, and calls nothing more once `dropped_`.

#ifndef PYHOST_RUNTIME_ENGINE_POOL_CORE_H_
#define PYHOST_RUNTIME_ENGINE_POOL_CORE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "pyhost/internal/core.h"
#include "runtime/base/deadline.h"
#include "runtime/broker/call_client.h"
#include "runtime/engine/crew.h"
#include "runtime/engine/deadlines.h"
#include "runtime/engine/exposed_functions.h"
#include "runtime/engine/lanes.h"
#include "runtime/session/session.h"
#include "runtime/sync/thread_life.h"

namespace pyhost {

class PoolCore;

class PoolSubmission final : public internal::Submission {
 public:
  PoolSubmission(std::shared_ptr<PoolCore> pool, std::string_view function)
      : pool_(std::move(pool)), function_(function) {}
  ~PoolSubmission() override;

  absl::StatusOr<std::vector<internal::OutcomeOr>> Await(absl::Duration timeout) override;
  bool Ready() override;
  bool Cancel() override;

 private:
  friend class PoolCore;
  const std::shared_ptr<PoolCore> pool_;
  const std::string function_;
  absl::Status refused_;              // none of it was submitted
  std::shared_ptr<CallGroup> group_;  // null when refused
  CallId first_;
  uint64_t count_ = 0;
};

class PoolCore final : public internal::Core, public std::enable_shared_from_this<PoolCore>, private NoticeSink {
 public:
  static absl::StatusOr<std::shared_ptr<PoolCore>> Start(Options options);
  ~PoolCore() override;

  std::unique_ptr<internal::Submission> Submit(std::string_view function,
                                               std::span<absl::StatusOr<EncodedValue>> arguments,
                                               const CallOptions& options) override;
  void SubmitAsync(std::string_view function, absl::StatusOr<EncodedValue> arguments, const CallOptions& options,
                   internal::Completion completion) override;
  std::unique_ptr<internal::Submission> Broadcast(std::string_view function,
                                                  absl::StatusOr<EncodedValue> arguments) override;
  absl::Status Expose(std::string_view name, internal::ExposedFunction function) override;
  size_t Poll(absl::Duration budget) override;
  void Flush() override;
  absl::StatusOr<AnyArray> Allocate(DType dtype, std::vector<int64_t> shape) override;
  Stats GetStats() override;
  absl::Status Shutdown(absl::Duration patience) override;
  void Drop() override;

 private:
  friend class PoolSubmission;
  struct Async {
    std::unique_ptr<PoolSubmission> submission;
    internal::Completion completion;
  };

  explicit PoolCore(Options options) : options_(std::move(options)) {}
  absl::Status Begin();
  absl::Status AwaitWorkers(Deadline deadline);
  void OnNotice(Message notice) override;

  // False in a process forked from the engine: workers, thread and locks are the engine's.
  bool IsOurs() const { return session_ == nullptr || session_->me(); }
  static absl::Status OfAnotherProcess();

  // Submitting.  `worker`: the number of the one that is to run it.
  static constexpr int kAnyWorker = -1;
  absl::Status Register(PoolSubmission& submission, uint64_t count, bool notify);
  void Push(PoolSubmission& submission, uint64_t index, const absl::StatusOr<EncodedValue>& arguments,
            const CallOptions& options, int worker);

  // Outcomes.
  absl::Status AwaitGroup(CallGroup& group, Deadline deadline);
  void MakeThisHome() ABSL_LOCKS_EXCLUDED(mutex_);
  bool ServesHere() const ABSL_LOCKS_EXCLUDED(mutex_);
  bool HasRequestsForHere() const { return exposed_->HasRequests() && ServesHere(); }
  absl::Status WhyStuck() const;
  internal::OutcomeOr Open(std::string_view function, CallId call, Arrival arrival);
  absl::Status LostError(std::string_view function, CallId call, std::span<const std::byte> lost_worker);

  // The crew's thread, when a deadline may be over or calls are kept back; when it is to look again.
  int64_t LookAfterCalls();
  void EndOverdue(CallId call);

  // What Poll does, until the deadline; how many.
  size_t Complete(Deadline deadline);
  // The next completion that may run; false when there is none.
  bool NextCompleted(Async* completed) ABSL_LOCKS_EXCLUDED(mutex_);
  size_t DeliverOutput();
  bool AwaitCrew(Deadline deadline);

  // Constant after Begin().
  Options options_;
  Session* session_ = nullptr;
  std::unique_ptr<CallClient> client_;
  std::unique_ptr<Lanes> lanes_;
  std::unique_ptr<ExposedFunctions> exposed_;
  std::unique_ptr<Crew> crew_;

  Deadlines deadlines_;
  std::atomic<bool> shut_down_{false};
  std::atomic<bool> cut_short_{false};  // shut down without waiting for what was submitted
  std::atomic<bool> dropped_{false};  // set under mutex_: the pool is gone, and what it was to call is dropped
  std::atomic<uint32_t> home_{0};  // ThreadToken of the thread that polled last; 0: none

  mutable absl::Mutex mutex_;
  ThreadLife home_life_ ABSL_GUARDED_BY(mutex_);  // that thread's
  int ready_ ABSL_GUARDED_BY(mutex_) = 0;  // workers that have begun, ever
  absl::Status report_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<const CallGroup*, Async> async_ ABSL_GUARDED_BY(mutex_);
  std::deque<Async> completed_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_ENGINE_POOL_CORE_H_
