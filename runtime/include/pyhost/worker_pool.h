// WorkerPool: Python on all cores from C++, without a GIL, an interpreter in this process, or a script that can bring it down.
//
//   auto pool = pyhost::WorkerPool::Start({.workers = 4, .python_path = {"scripts"}, .preload = {"brain"}});
//   if (!pool.ok()) return pool.status();
//   pyhost::Future<double> plan = pool->Call<double>("brain:plan", npc_id, "forest", std::vector<float>{1, 2});
//   absl::StatusOr<double> urgency = plan.Get(absl::Milliseconds(2));
//
// In a frame loop nobody waits: completions run on the thread that polls.
//
//   pool->CallAsync<double>("brain:plan", [&](absl::StatusOr<double> plan) { ... }, npc_id);
//   ...
//   pool->Poll(absl::Milliseconds(1));        // once a frame
//
// Values are those of pyhost/codec.h.  Each worker is a process that serves one call at a time; which one serves a call is
// not defined.  A script that crashes, hangs beyond its deadline, exhausts its memory or exits costs its call an error; the
// worker is replaced.
//
// Submitting never blocks and wakes no worker: calls leave for workers that are awake at once, and for sleeping ones with the next
// Poll(), Flush() or Get(), which makes one system call at most.  A deadline that is earlier than all others wakes the pool's thread.
//
// The process: the pool starts processes that are none of its children (no SIGCHLD, nothing for a wait to find), one thread that
// has all signals blocked, and descriptors from 200 up.  All pools of a process share its session; their workers end with it.
//
// Thread-safe.  The destructor is an immediate Shutdown(), and drops completions that have not run.  It may run inside of whatever
// the pool calls: nothing more is called then.
//
// Move-only.  Calls of a pool that was moved away are FailedPrecondition, their completions run at once.  In a process forked from
// the engine the pool is of no use: calls are FailedPrecondition, Poll() runs nothing and takes nothing of the engine's, and the
// destructor leaves the engine's workers alone.

#ifndef PYHOST_WORKER_POOL_H_
#define PYHOST_WORKER_POOL_H_

#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "pyhost/codec.h"
#include "pyhost/future.h"
#include "pyhost/internal/core.h"
#include "pyhost/internal/exposed.h"
#include "pyhost/options.h"
#include "pyhost/shared_array.h"
#include "pyhost/stats.h"

namespace pyhost {

// How calls are submitted; see WorkerPool, whose functions these are with default options.
class Caller {
 public:
  // `function` is "module:function" or "module:Class.method".  R is what the outcome is read as; void takes anything that can be pickled.
  template <typename R, typename... A>
  Future<R> Call(std::string_view function, const A&... arguments) const {
    absl::StatusOr<EncodedValue> encoded = EncodeArguments(arguments...);
    return Future<R>(core().Submit(function, {&encoded, 1}, options_));
  }

  // `completion(ResultOf<R>)` runs in Poll(), on its thread.  What it throws comes out of Poll(); others run in the next one.
  template <typename R, typename Completion, typename... A>
  void CallAsync(std::string_view function, Completion completion, const A&... arguments) const {
    core().SubmitAsync(function, EncodeArguments(arguments...), options_,
                       [completion = std::move(completion)](const internal::OutcomeOr& outcome) mutable {
                         completion(internal::Decode<R>(outcome));
                       });
  }

  // function(item) for each item of a range; a tuple is several arguments.
  template <typename R, typename Range>
  FutureList<R> Map(std::string_view function, Range&& items) const {
    std::vector<absl::StatusOr<EncodedValue>> encoded;
    for (const auto& item : ConstIfIterable(items)) encoded.push_back(EncodeItem(item));
    return FutureList<R>(core().Submit(function, encoded, options_));
  }

 protected:
  Caller(std::shared_ptr<internal::Core> core, const CallOptions& options) : core_(std::move(core)), options_(options) {}
  internal::Core& core() const { return core_ != nullptr ? *core_ : internal::NoCore(); }
  std::shared_ptr<internal::Core> core_;  // null: of a pool that was moved away

 private:
  friend class WorkerPool;
  // Some ranges (std::views::filter) change as they are gone through; of the others, items are seen as constants.
  template <typename Range>
  static auto& ConstIfIterable(Range& items) {
    if constexpr (requires(const Range& constant) { std::begin(constant); }) {
      return std::as_const(items);
    } else {
      return items;
    }
  }
  template <typename T>
  static absl::StatusOr<EncodedValue> EncodeItem(const T& item) {
    return EncodeArguments(item);
  }
  template <typename... T>
  static absl::StatusOr<EncodedValue> EncodeItem(const std::tuple<T...>& item) {
    return std::apply([](const T&... parts) { return EncodeArguments(parts...); }, item);
  }

  CallOptions options_;
};

class WorkerPool : public Caller {
 public:
  // Returns when every worker has imported and run what it is to and is ready.  Errors: NotFound, which says where the program
  // was looked for; FailedPrecondition for a program of another version; what start-up code raised; DeadlineExceeded.
  static absl::StatusOr<WorkerPool> Start(Options options = {}) {
    absl::StatusOr<std::shared_ptr<internal::Core>> core = internal::StartCore(std::move(options));
    if (!core.ok()) return core.status();
    return WorkerPool(*std::move(core));
  }
  WorkerPool(WorkerPool&&) = default;
  WorkerPool& operator=(WorkerPool&& other) {
    std::swap(core_, other.core_);
    return *this;
  }
  ~WorkerPool() {
    if (core_ != nullptr) core_->Drop();
  }

  // pool->With({.priority = Priority::kHigh, .deadline = absl::Milliseconds(5)}).Call<double>(...)
  Caller With(const CallOptions& options) const { return Caller(core_, options); }

  // Once on every worker, beside its other calls; results by worker number, one for each.  For a worker that is just being
  // replaced its replacement runs it.  Workers that are started later do not: what every worker needs belongs into
  // Options::startup_code.
  template <typename R, typename... A>
  FutureList<R> Broadcast(std::string_view function, const A&... arguments) const {
    return FutureList<R>(core().Broadcast(function, EncodeArguments(arguments...)));
  }
  // Every worker that has imported `module` imports it anew, after the call that it is in.  A module that cannot be imported is
  // that worker's error, and all that was there before stays.  As with importlib.reload(), names that the new source no
  // longer has stay, too.
  FutureList<void> Reload(std::string_view module) const { return Broadcast<void>("pyhost.engine:reload", module); }

  // Makes `function` callable from scripts: pyhost.engine.call(name, ...).  It is any callable with parameters and a result that
  // codec.h knows; a result of absl::Status or absl::StatusOr may be an error, which the script gets as an EngineError; so
  // are arguments that do not fit, and an exception that it throws (INTERNAL).  It runs on the thread that polls: in Poll(), and in
  // Get() and Shutdown() on the thread that polled last (on any, while none has, or when that one has ended).  It may call the pool,
  // and wait for it as long as another worker is free.  Replaces a function of that name.
  template <typename F>
  absl::Status Expose(std::string_view name, F function) const {
    return core().Expose(name, internal::MakeExposed(std::move(function)));
  }

  // Runs what is there to run on this thread until `budget` is over, at least one thing: exposed functions that scripts wait for,
  // completions, output of workers.  Never waits.  How many things were run.
  size_t Poll(absl::Duration budget = absl::InfiniteDuration()) const { return core().Poll(budget); }
  // Wakes sleeping workers for what was submitted.
  void Flush() const { core().Flush(); }

  // An array of zeros in memory shared with all workers.  ResourceExhausted names size, limit and setting.
  template <typename T>
  absl::StatusOr<SharedArray<T>> Allocate(std::vector<int64_t> shape) const {
    absl::StatusOr<AnyArray> array = core().Allocate(kDTypeOf<T>, std::move(shape));
    if (!array.ok()) return array.status();
    return SharedArray<T>::From(*std::move(array));
  }

  pyhost::Stats Stats() const { return core().GetStats(); }

  // No new calls.  With patience, those submitted are done first; DeadlineExceeded when some were not in time, and without
  // patience at once: workers are killed, calls without an outcome end as Cancelled.  Completions that came run in the next Poll().
  // With patience inside of an exposed function, whose script would never be done: FailedPrecondition, and nothing happens.
  // Of several that run at a time the least patient decides, and those that still waited then return Cancelled.
  absl::Status Shutdown(absl::Duration patience) const { return core().Shutdown(patience); }

 private:
  explicit WorkerPool(std::shared_ptr<internal::Core> core) : Caller(std::move(core), CallOptions()) {}
};

}  // namespace pyhost

#endif  // PYHOST_WORKER_POOL_H_
