// WorkerDecider: pyhost workers decide.  A group whose script has not answered keeps the decisions it had: the frame goes on.

#ifndef PYHOST_EXAMPLES_ENGINE_FLOCK_WORKER_DECIDER_H_
#define PYHOST_EXAMPLES_ENGINE_FLOCK_WORKER_DECIDER_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "decider.h"
#include "pyhost/worker_pool.h"

namespace flock {

struct WorkerSettings {
  int workers = 2;
  int64_t agents = 2000;
  std::string scripts = {};                            // their folder
  absl::Duration patience = absl::InfiniteDuration();  // how long a frame waits for decisions
  absl::Duration deadline = absl::InfiniteDuration();  // how long a script may take before its worker is replaced
  // Told of every call that failed.
  std::function<void(int frame, const char* script, const absl::Status&)> on_failure = {};
};

class WorkerDecider : public Decider {
 public:
  static absl::StatusOr<std::unique_ptr<WorkerDecider>> Start(WorkerSettings settings);

  std::span<Agent> agents() override { return {reinterpret_cast<Agent*>(agents_.data()), rows()}; }
  std::span<Steering> steering() override { return {reinterpret_cast<Steering*>(steering_.data()), rows()}; }
  void Decide(int frame) override;
  int missed() const override { return missed_; }

  // Workers import the script anew.
  absl::Status Reload(const char* script);

 private:
  struct Group {
    pyhost::SharedArray<float> agents;
    pyhost::SharedArray<float> steering;
    std::string function;
    int asked_in = 0;  // frame
    std::optional<pyhost::Future<void>> outcome;  // while the script is at it
  };

  WorkerDecider(WorkerSettings settings, pyhost::WorkerPool pool)
      : settings_(std::move(settings)), pool_(std::move(pool)) {}
  absl::Status MakeGroups();
  size_t rows() const { return static_cast<size_t>(agents_.shape(0)); }
  // Takes the outcome if it is there by `end`.
  void Collect(size_t group, absl::Time end);

  WorkerSettings settings_;
  pyhost::WorkerPool pool_;
  pyhost::SharedArray<float> agents_;
  pyhost::SharedArray<float> steering_;
  Group groups_[kGroups];
  int missed_ = 0;
};

}  // namespace flock

#endif  // PYHOST_EXAMPLES_ENGINE_FLOCK_WORKER_DECIDER_H_
