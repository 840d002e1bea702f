// What the templates of WorkerPool and Future stand on: a pool in terms of pickles.  Not for direct use.

#ifndef PYHOST_INTERNAL_CORE_H_
#define PYHOST_INTERNAL_CORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "pyhost/options.h"
#include "pyhost/shared_array.h"
#include "pyhost/stats.h"
#include "pyhost/value_reader.h"
#include "pyhost/value_writer.h"

namespace pyhost::internal {

// What a script returned.  Views are valid while it lives.
class Outcome {
 public:
  virtual ~Outcome() = default;
  virtual std::string_view pickle() const = 0;
  virtual DecodeContext context() const = 0;
  // The error with the name of the called function in front.
  virtual absl::Status Named(const absl::Status& error) const = 0;
};
using OutcomeOr = absl::StatusOr<std::unique_ptr<Outcome>>;

// Calls that were submitted together.  Dropped before their outcomes came, they run all the same.
class Submission {
 public:
  virtual ~Submission() = default;
  // All outcomes, in the order of submission, once.  DeadlineExceeded: not yet.
  virtual absl::StatusOr<std::vector<OutcomeOr>> Await(absl::Duration timeout) = 0;
  virtual bool Ready() = 0;
  virtual bool Cancel() = 0;
};

using ExposedFunction = std::function<absl::StatusOr<EncodedValue>(std::string_view arguments, const DecodeContext& context)>;
using Completion = std::function<void(OutcomeOr outcome)>;

class Core {
 public:
  virtual ~Core() = default;
  // One call for each of `arguments`; an error among them is that call's outcome.
  virtual std::unique_ptr<Submission> Submit(std::string_view function, std::span<absl::StatusOr<EncodedValue>> arguments,
                                             const CallOptions& options) = 0;
  virtual void SubmitAsync(std::string_view function, absl::StatusOr<EncodedValue> arguments, const CallOptions& options,
                           Completion completion) = 0;
  virtual std::unique_ptr<Submission> Broadcast(std::string_view function, absl::StatusOr<EncodedValue> arguments) = 0;
  virtual absl::Status Expose(std::string_view name, ExposedFunction function) = 0;
  virtual size_t Poll(absl::Duration budget) = 0;
  virtual void Flush() = 0;
  virtual absl::StatusOr<AnyArray> Allocate(DType dtype, std::vector<int64_t> shape) = 0;
  virtual Stats GetStats() = 0;
  virtual absl::Status Shutdown(absl::Duration patience) = 0;
  // Shuts down at once; completions that have not run are dropped.
  virtual void Drop() = 0;
};

absl::StatusOr<std::shared_ptr<Core>> StartCore(Options options);
// What a pool has that was moved away: all of it is FailedPrecondition.
Core& NoCore();

}  // namespace pyhost::internal

#endif  // PYHOST_INTERNAL_CORE_H_
