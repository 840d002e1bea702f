// The core of a pool that was moved away.

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "pyhost/internal/core.h"

namespace pyhost::internal {
namespace {

absl::Status MovedAway() { return absl::FailedPreconditionError("the pool was moved away"); }

class NoSubmission final : public Submission {
 public:
  absl::StatusOr<std::vector<OutcomeOr>> Await(absl::Duration) override { return MovedAway(); }
  bool Ready() override { return true; }
  bool Cancel() override { return false; }
};

class MovedCore final : public Core {
 public:
  std::unique_ptr<Submission> Submit(std::string_view, std::span<absl::StatusOr<EncodedValue>>,
                                     const CallOptions&) override {
    return std::make_unique<NoSubmission>();
  }
  void SubmitAsync(std::string_view, absl::StatusOr<EncodedValue>, const CallOptions&, Completion completion) override {
    completion(MovedAway());
  }
  std::unique_ptr<Submission> Broadcast(std::string_view, absl::StatusOr<EncodedValue>) override {
    return std::make_unique<NoSubmission>();
  }
  absl::Status Expose(std::string_view, ExposedFunction) override { return MovedAway(); }
  size_t Poll(absl::Duration) override { return 0; }
  void Flush() override {}
  absl::StatusOr<AnyArray> Allocate(DType, std::vector<int64_t>) override { return MovedAway(); }
  Stats GetStats() override { return {}; }
  absl::Status Shutdown(absl::Duration) override { return MovedAway(); }
  void Drop() override {}
};

}  // namespace

Core& NoCore() {
  static MovedCore core;
  return core;
}

}  // namespace pyhost::internal
