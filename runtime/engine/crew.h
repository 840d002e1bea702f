// Crew: the workers of one pool, and the thread that looks after them: notices ends, starts replacements, gives up.
//
//   kRunning   the number of workers is kept
//   kClosing   workers end when the calls are done; one that ends before is replaced while calls wait
//   kStopping  nobody is replaced
//
// A replacement that cannot be started is tried again after a pause that grows; each try counts as a death to RestartIntensity.
//
// It also ends workers that are stuck in a call beyond its deadline, and reads what workers print for a callback.
//
// The thread is the engine's only thread of ours.  It has all signals blocked, sleeps in poll() on the workers' sentinels, and
// is on the way of no call.
//
// Thread-safe.

#ifndef PYHOST_RUNTIME_ENGINE_CREW_H_
#define PYHOST_RUNTIME_ENGINE_CREW_H_

#include <poll.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "runtime/base/deadline.h"
#include "runtime/base/mutex_lock.h"
#include "runtime/base/wait.h"
#include "runtime/broker/call_client.h"
#include "runtime/engine/fault_file.h"
#include "runtime/engine/lanes.h"
#include "runtime/engine/worker_output.h"
#include "runtime/engine/worker_start.h"
#include "pyhost/options.h"
#include "runtime/os/unique_fd.h"
#include "runtime/supervision/child_process.h"

namespace pyhost {

class Crew {
 public:
  // `client` and `lanes` outlive the crew.  Starts the workers; on an error those that were started are gone again.
  static absl::StatusOr<std::unique_ptr<Crew>> Start(Session* session, CallClient* client, Lanes* lanes,
                                                     const Options& options, Deadline deadline);
  ~Crew() { Stop(); }
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  // The client is closed: workers end by themselves.  False: some were still running at the deadline.
  bool Close(Deadline deadline);
  // Kills the workers and returns when they are gone.  Idempotent.
  void Stop();

  // Ends the worker that runs this call, with the processes of its group, if it still does when it has stopped, and says where in
  // the script it was.  Nothing when the call was over.
  std::optional<std::string> EndStuck(CallId call);
  // What a worker that ended, now or before, wrote about a crash; empty when nothing.
  std::string FaultOf(HostId worker) const;
  // Starts the thread.  It calls `look` when LookBefore() asked for it; `look` says when next (nanoseconds of
  // CLOCK_MONOTONIC).  `on_end`: a worker has ended.  LookBefore() wakes the thread only when it would sleep longer.
  void BeginWatching(std::function<int64_t()> look, std::function<void(HostId)> on_end);
  void LookBefore(int64_t nanos);

  struct WorkerInfo {
    int number;
    HostId id;
    pid_t pid;
  };
  std::vector<WorkerInfo> workers() const;
  WorkerOutput& output() { return *output_; }

  // Why a worker could not begin, as it said itself: part of the reason when the pool gives up.
  void NoteReport(const absl::Status& report);
  // Why there are no workers any more; OK while there are.
  absl::Status failure() const;
  int replaced() const;

 private:
  enum class State { kRunning, kClosing, kStopping };
  struct Worker {
    int number;
    std::shared_ptr<ChildProcess> process;
    std::shared_ptr<FaultFile> faults;
    std::shared_ptr<UniqueFd> output;  // null: nothing to read
  };
  struct Fault {
    HostId worker;
    std::string text;
  };

  // Ends the wait for a replacement, which may be long if its server hangs, when nobody wants one any more.
  class UntilStopped final : public Interruptible {
   public:
    explicit UntilStopped(Crew* crew) : crew_(crew) {}
    absl::Status OnSignal() override;

   private:
    Crew* const crew_;
  };

  Crew(CallClient* client, Lanes* lanes, const Options& options, UniqueFd wake);
  absl::Status StartWorker(int number, Wait wait);
  void Run();
  void Sleep();
  int SleepMillis() const;
  void ReadOutput(const std::vector<Worker>& workers, std::span<const pollfd> events);
  void Look();
  // The next look; false when it is earlier already.
  bool BringForward(int64_t nanos);
  void Wake();
  // What belongs to a worker that has ended.
  void Bury(const Worker& worker);
  void RemoveEnded() ABSL_LOCKS_EXCLUDED(mutex_);
  void StartMissing() ABSL_LOCKS_EXCLUDED(mutex_);
  // `queued`: calls that wait.
  bool WantsReplacements(uint64_t queued) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteFailedStart(int number, const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);
  void TellFailure() ABSL_LOCKS_EXCLUDED(mutex_);
  void AwaitReports();
  void NoteDeath(const std::string& how, uint64_t answered) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Fail(const std::string& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Done() const;

  // Constant after construction.
  CallClient* const client_;
  Lanes* const lanes_;
  const int size_;
  const RestartIntensity restarts_;
  std::unique_ptr<WorkerStarter> starter_;
  std::unique_ptr<WorkerOutput> output_;
  const UniqueFd wake_;  // eventfd
  std::function<int64_t()> look_;
  std::function<void(HostId)> on_end_;
  // The thread's.
  bool awaiting_exit_ = false;
  std::vector<HostId> buried_;  // ended; what they had may not be reported yet
  std::vector<int> missing_;    // the numbers of workers that ended and are to be replaced
  absl::Duration start_pause_ = absl::ZeroDuration();  // after the last start, if it failed
  int64_t next_start_ = 0;                             // nanoseconds of CLOCK_MONOTONIC
  absl::Mutex join_mutex_;  // taken before mutex_
  std::thread thread_ ABSL_GUARDED_BY(join_mutex_);
  absl::Notification finished_;  // of the thread: no worker is left, and what they lost is reported
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> next_look_{kNever};
  std::atomic<bool> woken_{false};  // and has not begun to look around since

  mutable absl::Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kRunning;
  std::vector<Worker> workers_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  absl::Status report_ ABSL_GUARDED_BY(mutex_);
  std::deque<absl::Time> deaths_ ABSL_GUARDED_BY(mutex_);  // since the last answered call
  uint64_t answered_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<Fault> faults_ ABSL_GUARDED_BY(mutex_);  // of workers that ended, the newest last
  int replaced_ ABSL_GUARDED_BY(mutex_) = 0;
  bool fail_now_ ABSL_GUARDED_BY(mutex_) = false;  // the thread is to tell the client
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_ENGINE_CREW_H_
