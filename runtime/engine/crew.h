// Crew: the workers of one pool, and the thread that looks after them: notices ends, starts replacements, gives up.
//
//   kRunning   the number of workers is kept
//   kClosing   workers end when the calls are done; one that ends before is replaced while calls wait
//   kStopping  nobody is replaced
//
// The thread is the engine's only thread of ours.  It has all signals blocked, sleeps in poll() on the workers' sentinels, and
// is on the way of no call.
//
// Thread-safe.

#ifndef PYHOST_RUNTIME_ENGINE_CREW_H_
#define PYHOST_RUNTIME_ENGINE_CREW_H_

#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "runtime/base/deadline.h"
#include "runtime/base/mutex_lock.h"
#include "runtime/broker/call_client.h"
#include "runtime/engine/worker_start.h"
#include "runtime/include/pyhost/options.h"
#include "runtime/os/unique_fd.h"
#include "runtime/supervision/child_process.h"

namespace pyhost {

class Crew {
 public:
  // `client` outlives the crew.  Starts the workers; on an error those that were started are gone again.
  static absl::StatusOr<std::unique_ptr<Crew>> Start(Session* session, CallClient* client, const Options& options,
                                                     Deadline deadline);
  ~Crew() { Stop(); }
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  // The client is closed: workers end by themselves.  False: some were still running at the deadline.
  bool Close(Deadline deadline);
  // Kills the workers and returns when they are gone.  Idempotent.
  void Stop();

  // Why a worker could not begin, as it said itself: part of the reason when the pool gives up.
  void NoteReport(const absl::Status& report);
  // Why there are no workers any more; OK while there are.
  absl::Status failure() const;
  int replaced() const;

 private:
  enum class State { kRunning, kClosing, kStopping };
  struct Worker {
    int number;
    std::unique_ptr<ChildProcess> process;
  };

  Crew(CallClient* client, const Options& options, std::unique_ptr<WorkerStarter> starter, UniqueFd wake);
  absl::Status StartWorker(int number, Deadline deadline);
  void Run();
  void Sleep();
  void Wake();
  // The numbers of workers that ended and are to be replaced.
  std::vector<int> RemoveEnded() ABSL_LOCKS_EXCLUDED(mutex_);
  void NoteDeath(const std::string& how, uint64_t answered) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Fail(const std::string& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Done() const;

  // Constant after construction.
  CallClient* const client_;
  const int size_;
  const RestartIntensity restarts_;
  const std::unique_ptr<WorkerStarter> starter_;
  const UniqueFd wake_;  // eventfd
  std::thread thread_;

  mutable absl::Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kRunning;
  std::vector<Worker> workers_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  absl::Status report_ ABSL_GUARDED_BY(mutex_);
  std::deque<absl::Time> deaths_ ABSL_GUARDED_BY(mutex_);  // since the last answered call
  uint64_t answered_ ABSL_GUARDED_BY(mutex_) = 0;
  int replaced_ ABSL_GUARDED_BY(mutex_) = 0;
  bool fail_now_ ABSL_GUARDED_BY(mutex_) = false;  // the thread is to tell the client
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_ENGINE_CREW_H_
