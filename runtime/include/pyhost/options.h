// What a WorkerPool is started with.  Plain values: copied by Start(), nothing is kept by reference.

#ifndef PYHOST_OPTIONS_H_
#define PYHOST_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"

namespace pyhost {

// A pool gives up (every call fails, and says why) when `deaths` workers have ended, or could not be started, within `period` and
// no call was answered meanwhile.
struct RestartIntensity {
  int deaths = 10;
  absl::Duration period = absl::Seconds(10);
};

// Where workers write what scripts print (file descriptors 1 and 2).  Workers read nothing: their input is /dev/null.
struct Output {
  enum class To {
    kInherit,   // where the engine's own output goes
    kFile,      // appended to `path`, which is created when missing
    kCallback,  // `on_output`
    kNowhere,
  };
  To to = To::kInherit;
  std::string path = {};
  // Called by WorkerPool::Poll() on the polling thread with what one worker wrote, whole lines where it wrote whole lines.
  // Of a worker that writes faster than the engine polls, the newest 1 MiB is kept and a line says what was dropped.
  std::function<void(int worker, std::string_view text)> on_output = nullptr;
};

struct Options {
  // Worker processes; 0: one for each processor that the engine may use.
  int workers = 0;
  // Folders put in front of the workers' sys.path; relative ones are relative to the working directory of the workers.
  std::vector<std::string> python_path = {};
  // Modules that each worker imports before it takes calls.
  std::vector<std::string> preload = {};
  // Python source that each worker runs after that.
  std::string startup_code = {};
  // Folder of a virtual environment whose packages the workers see.
  std::string virtual_env = {};
  // Variables on top of the engine's own; an empty value removes the variable.
  std::map<std::string, std::string> environment = {};
  // The workers'; empty: the engine's when Start() is called.
  std::string working_directory = {};
  // Bytes of private memory that a worker may allocate; beyond it a script gets MemoryError.  0: no limit.
  uint64_t worker_memory_limit = 0;
  // Bytes of memory shared with all workers of this process: calls, replies, arrays.  Counts for the first pool of a process
  // alone.  0: half of the machine's, see runtime/README.md.
  uint64_t shared_memory_limit = 0;
  RestartIntensity restarts = {};
  Output output = {};
  // The program pyhost.  Empty: $PYHOST_PROGRAM, beside the library or the engine, where it was installed, $PATH.
  std::string program = {};
  // How long Start() waits until every worker is ready.
  absl::Duration start_timeout = absl::Seconds(60);
  // Workers never sleep: a call is taken within a microsecond and never costs a wake-up, and each worker uses a processor
  // all the time.
  bool hot_workers = false;
};

// Of calls that wait for a worker, those of a higher priority are taken first; a call that runs is not interrupted.
enum class Priority { kHigh, kNormal, kLow };

// What a call is submitted with: pool->With({.deadline = absl::Milliseconds(5)}).Call<double>(...).
struct CallOptions {
  Priority priority = Priority::kNormal;
  // From submission on, whether anybody polls or not.  A call that has no outcome by then ends as DeadlineExceeded: one that
  // waits is not run, nor is one that is submitted with nothing left; the worker that runs it is killed, with the processes that
  // it started and left in its process group, and replaced, and the error says where in the script it was.  Noticed within some
  // milliseconds.
  absl::Duration deadline = absl::InfiniteDuration();
};

}  // namespace pyhost

#endif  // PYHOST_OPTIONS_H_
