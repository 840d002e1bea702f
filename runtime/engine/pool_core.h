// PoolCore: all of a WorkerPool that is no template: pickle bytes in, pickle bytes out.
//
//   auto call = core->Submit("brain:plan", pickle, {}, options);      never blocks
//   auto reply = call->Await(absl::Milliseconds(2));                  drains the reply queue while it waits
//
// Owns the caller's end of the pool (CallClient) and the crew.  Lives as long as anybody has the pool or one of its calls;
// after Shutdown() every call ends with FailedPrecondition.
//
// Thread-safe.

#ifndef PYHOST_RUNTIME_ENGINE_POOL_CORE_H_
#define PYHOST_RUNTIME_ENGINE_POOL_CORE_H_

#include <atomic>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "runtime/broker/call_client.h"
#include "runtime/engine/crew.h"
#include "runtime/include/pyhost/options.h"
#include "runtime/queue/queue.h"
#include "runtime/session/session.h"

namespace pyhost {

// A part of a call's payload that lies in the segment and is not copied: an out-of-band buffer of the pickle.
struct BufferRef {
  Handle handle;
  uint64_t size = 0;
  bool readonly = false;
};

// What a script returned.  Views are valid while it lives.
class Reply {
 public:
  // DataLoss when the payload of `message` is malformed.
  static absl::StatusOr<std::unique_ptr<Reply>> Parse(Message message);
  std::string_view pickle() const { return pickle_; }
  const std::vector<BufferRef>& buffers() const { return buffers_; }  // of the pickle, in its order
  std::span<const Handle> handles() const { return message_.handles(); }  // buffers first

 private:
  Message message_;
  std::string_view pickle_;
  std::vector<BufferRef> buffers_;
};

class PoolCore;

// One submitted call.  Dropped before its outcome came, it runs all the same and nobody learns what it gave.
class PoolCall {
 public:
  PoolCall(std::shared_ptr<PoolCore> pool, std::string_view function) : pool_(std::move(pool)), function_(function) {}
  ~PoolCall();

  bool Ready();
  // The outcome, once: later calls get FailedPrecondition.  DeadlineExceeded when it has not come in time: ask again.
  absl::StatusOr<std::unique_ptr<Reply>> Await(Deadline deadline);

 private:
  friend class PoolCore;
  const std::shared_ptr<PoolCore> pool_;
  const std::string function_;
  absl::Status refused_;              // it was never submitted
  std::shared_ptr<CallGroup> group_;  // null when refused
  CallId id_;
};

class PoolCore final : public std::enable_shared_from_this<PoolCore>, private NoticeSink {
 public:
  static absl::StatusOr<std::shared_ptr<PoolCore>> Start(Options options);
  ~PoolCore() override;

  // `handles`: objects that this process holds, for the worker; the buffers come first.  What refuses the call is its
  // outcome.
  std::unique_ptr<PoolCall> Submit(std::string_view function, std::string_view pickle, std::span<const BufferRef> buffers,
                                   std::span<const Handle> handles);

  // Orderly: no new calls; those submitted are done.  DeadlineExceeded when that took too long, and then, as at once with an
  // expired deadline: kills the workers; calls without an outcome end as Cancelled.  Idempotent.
  absl::Status Shutdown(Deadline deadline);

  Session* session() const { return session_; }
  int workers() const { return options_.workers; }

 private:
  friend class PoolCall;
  explicit PoolCore(Options options) : options_(std::move(options)) {}
  absl::Status Begin();
  absl::Status AwaitWorkers(Deadline deadline);
  void OnNotice(Message notice) override;
  absl::Status Push(PoolCall& call, std::string_view pickle, std::span<const BufferRef> buffers,
                    std::span<const Handle> handles);
  absl::StatusOr<std::unique_ptr<Reply>> TakeOutcome(PoolCall& call);

  const Options options_;
  Session* session_ = nullptr;
  std::unique_ptr<CallClient> client_;
  std::unique_ptr<Crew> crew_;
  std::atomic<bool> shut_down_{false};

  absl::Mutex mutex_;
  int ready_ ABSL_GUARDED_BY(mutex_) = 0;  // workers that have begun, ever
  absl::Status report_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_ENGINE_POOL_CORE_H_
