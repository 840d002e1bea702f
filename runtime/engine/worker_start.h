// WorkerStarter: how a worker of a pool is started, the first time and each time that it is replaced.
//
// What workers inherit is what the engine had when the pool was started: environment, working directory, processors (all that
// any thread of the engine may use, so that an engine that pins its threads does not pin its workers).  No signal is
// ignored or blocked in them, whatever the engine does with its own.
//
// Used by one thread at a time.

#ifndef PYHOST_RUNTIME_ENGINE_WORKER_START_H_
#define PYHOST_RUNTIME_ENGINE_WORKER_START_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/base/wait.h"
#include "pyhost/options.h"
#include "runtime/os/unique_fd.h"
#include "runtime/session/session.h"
#include "runtime/supervision/child_process.h"
#include "runtime/supervision/child_start.h"

namespace pyhost {

// What one worker gets.
struct WorkerSeat {
  int number = 0;
  std::vector<Handle> lanes = {};  // Lanes::HandlesFor
  size_t wait_at = 0;
  int faults = -1;  // FaultFile's descriptor
  int output = -1;  // its descriptors 1 and 2; -1: the engine's own
};

// Variables and virtual environment of the options are such.
absl::Status CheckEnvironment(const Options& options);

class WorkerStarter {
 public:
  // Workers run `options.program`, a path that FindProgram() found.  `version`: of the library, for the worker to compare with
  // its own.  Errors name the folder that cannot be opened.
  static absl::StatusOr<std::unique_ptr<WorkerStarter>> Create(Session* session, const Options& options,
                                                               const std::string& version);

  absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const WorkerSeat& seat, Wait wait);

 private:
  WorkerStarter(Session* session, const Options& options, const std::string& version)
      : session_(session), options_(options), version_(version) {}
  std::string Body(const WorkerSeat& seat) const;

  Session* const session_;
  const Options options_;
  const std::string version_;
  StartOverrides overrides_;
  UniqueFd working_directory_;
  UniqueFd no_input_;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_ENGINE_WORKER_START_H_
