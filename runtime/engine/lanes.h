// Lanes: the ways into a pool's workers.  Three for priorities, and one of each worker's own, for what every worker is to do.
//
// Pushing wakes nobody; Announce() wakes as many workers as calls were pushed since, with one system call at most, and none when
// no worker sleeps.
//
// Thread-safe.

#ifndef PYHOST_RUNTIME_ENGINE_LANES_H_
#define PYHOST_RUNTIME_ENGINE_LANES_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "runtime/base/deadline.h"
#include "runtime/base/ids.h"
#include "runtime/base/mutex_lock.h"
#include "runtime/broker/call_client.h"
#include "runtime/broker/call_lane.h"
#include "pyhost/options.h"

namespace pyhost {

class Lanes {
 public:
  // `client` outlives the lanes.
  static absl::StatusOr<std::unique_ptr<Lanes>> Create(Segment& segment, CallClient& client);

  // What a worker serves, the preferred first: a new lane of its own, then those of all.
  absl::StatusOr<std::shared_ptr<CallLane>> NewOwnLane();
  std::vector<Handle> HandlesFor(const CallLane& own) const;
  static constexpr size_t kWaitAt = 2;  // in those: where the workers wait
  // The worker that was started with this lane, and its end: calls that it has not taken are settled as `lost`.
  void AddOwnLane(HostId worker, std::shared_ptr<CallLane> lane);
  void DropOwnLane(HostId worker, const absl::Status& lost);
  std::vector<HostId> workers() const;

  absl::Status Push(Priority priority, const MessageView& call);
  // Aborted when that worker has ended.
  absl::Status PushTo(HostId worker, const MessageView& call);
  void Announce();

  // True: no worker will run it.
  bool Cancel(CallId call);
  // The worker that runs the call; none when nobody does.
  HostId WorkerRunning(CallId call) const;
  // Waits until what this worker, which has ended, had in its hands is reported as lost.  False: not by the deadline.
  bool AwaitReport(HostId worker, Deadline deadline) const;
  WorkerFigures FiguresOf(HostId worker) const;
  uint64_t queued() const;

  void Close();
  void Terminate();

 private:
  static constexpr uint32_t kAll = ~uint32_t{0};
  Lanes(Segment& segment, CallClient& client) : segment_(segment), client_(client) {}
  std::vector<std::shared_ptr<CallLane>> All() const ABSL_LOCKS_EXCLUDED(mutex_);
  CallLane& wait_lane() { return *shared_[static_cast<size_t>(Priority::kNormal)]; }

  Segment& segment_;
  CallClient& client_;
  std::array<std::shared_ptr<CallLane>, 3> shared_;  // by Priority; constant after creation
  std::atomic<uint32_t> unannounced_{0};             // kAll: for a worker of its own, so all are to look
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<uint32_t, std::shared_ptr<CallLane>> own_ ABSL_GUARDED_BY(mutex_);  // by HostId
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_ENGINE_LANES_H_
