// Future<T>: what a call will give.
//
//   pyhost::Future<double> plan = pool->Call<double>("brain:plan", npc, "forest");
//   ...
//   absl::StatusOr<double> urgency = plan.Get(absl::Milliseconds(2));
//
// Move-only.  One thread at a time; different futures of a pool on any threads.  May outlive its pool, whose end gives it a
// Cancelled.  Dropped, its call runs all the same.

#ifndef PYHOST_FUTURE_H_
#define PYHOST_FUTURE_H_

#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "pyhost/codec.h"
#include "pyhost/internal/core.h"

namespace pyhost {

// What Get() of a Future<T> returns: absl::Status for void.
template <typename T>
using ResultOf = std::conditional_t<std::is_void_v<T>, absl::Status,
                                    absl::StatusOr<std::conditional_t<std::is_void_v<T>, int, T>>>;

namespace internal {
template <typename T>
ResultOf<T> Decode(const OutcomeOr& outcome) {
  if (!outcome.ok()) return outcome.status();
  if constexpr (std::is_void_v<T>) {
    return absl::OkStatus();  // Whatever the script returned.
  } else {
    absl::StatusOr<T> value = DecodeValue<T>((*outcome)->pickle(), (*outcome)->context());
    return value.ok() ? std::move(value) : (*outcome)->Named(value.status());
  }
}
}  // namespace internal

template <typename T>
class Future {
 public:
  explicit Future(std::unique_ptr<internal::Submission> submission) : submission_(std::move(submission)) {}

  // Waits for the outcome, and gives it once.  While it waits on the thread that polls, exposed functions that scripts call are
  // run.  Errors, whose messages begin with the function's name:
  //   the code of the script's EngineError; Unknown for any other exception, with type, message and traceback
  //   NotFound            no such module or function; the search path
  //   InvalidArgument     arguments that cannot be sent or do not fit the function; a result that is no T: expected and got
  //   Aborted             the worker died in the call: how, and where in the script it was
  //   DeadlineExceeded    it has not come within `timeout`: Get() may be called again; or the call's own deadline is over
  //   ResourceExhausted   no memory in the script, or shared memory for the call or its result
  //   Unavailable         the pool gave up, and why
  //   Cancelled           Cancel(), or the pool was shut down;  FailedPrecondition: after that, or got before
  ResultOf<T> Get(absl::Duration timeout = absl::InfiniteDuration()) {
    absl::StatusOr<std::vector<internal::OutcomeOr>> outcomes = submission_->Await(timeout);
    if (!outcomes.ok()) return outcomes.status();
    return internal::Decode<T>(outcomes->front());
  }
  // Get() would not wait.
  bool Ready() { return submission_->Ready(); }
  // True: the call had not begun and will not; Get() gives Cancelled.
  bool Cancel() { return submission_->Cancel(); }

 private:
  std::unique_ptr<internal::Submission> submission_;
};

// The outcomes of several calls, in the order of submission: of Map() by item, of Broadcast() by worker.
template <typename T>
class FutureList {
 public:
  explicit FutureList(std::unique_ptr<internal::Submission> submission) : submission_(std::move(submission)) {}

  // As Future's, for all calls; each has an outcome or error of its own.
  absl::StatusOr<std::vector<ResultOf<T>>> Get(absl::Duration timeout = absl::InfiniteDuration()) {
    absl::StatusOr<std::vector<internal::OutcomeOr>> outcomes = submission_->Await(timeout);
    if (!outcomes.ok()) return outcomes.status();
    std::vector<ResultOf<T>> results;
    results.reserve(outcomes->size());
    for (const internal::OutcomeOr& outcome : *outcomes) results.push_back(internal::Decode<T>(outcome));
    return results;
  }
  bool Ready() { return submission_->Ready(); }
  // True: none had begun.
  bool Cancel() { return submission_->Cancel(); }

 private:
  std::unique_ptr<internal::Submission> submission_;
};

}  // namespace pyhost

#endif  // PYHOST_FUTURE_H_
