// WorkerOutput: what the workers of one pool write to their descriptors 1 and 2, and where it goes.
//
// For a callback there is a pipe a worker, which the crew's thread reads; Take() gives what came.  A worker is never made to wait
// by an engine that does not poll: of what it writes beyond kMostBytes the oldest is dropped.
//
// Thread-safe.

#ifndef PYHOST_RUNTIME_ENGINE_WORKER_OUTPUT_H_
#define PYHOST_RUNTIME_ENGINE_WORKER_OUTPUT_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "runtime/base/mutex_lock.h"
#include "pyhost/options.h"
#include "runtime/os/unique_fd.h"

namespace pyhost {

class WorkerOutput {
 public:
  static constexpr size_t kMostBytes = 1 << 20;

  // Errors name the file.
  static absl::StatusOr<std::unique_ptr<WorkerOutput>> Create(const Output& output);

  // The two ends for a worker: `theirs` becomes its descriptors 1 and 2 (-1: the engine's own), `ours` is to be read (-1: none).
  struct Ends {
    UniqueFd ours;
    UniqueFd theirs;
    int theirs_fd = -1;
  };
  absl::StatusOr<Ends> Open();
  // Reads what is there without waiting.  False at the end.
  bool Read(int worker, int ours);

  // What came since the last time, by worker; text that ends within a line waits for the rest of it.
  std::vector<std::pair<int, std::string>> Take();

 private:
  struct Pending {
    std::string text;
    uint64_t dropped = 0;
  };
  explicit WorkerOutput(UniqueFd file, bool pipes) : file_(std::move(file)), pipes_(pipes) {}
  void Add(int worker, std::string_view text);
  static void Cut(Pending* pending);

  const UniqueFd file_;  // all workers write there, where it is open
  const bool pipes_;
  absl::Mutex mutex_;
  std::map<int, Pending> pending_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_ENGINE_WORKER_OUTPUT_H_
