// Lanes: the ways into a pool's workers.  Three for priorities, and one of each worker's own, for what every worker is to do.
//
// A worker's own lane is that of its number and outlives it: what it did not take waits for its replacement.
//
// Pushing wakes nobody; Announce() wakes as many workers as calls were pushed since, with one system call at most, and none when
// no worker sleeps.
//
// Thread-safe.

#ifndef PYHOST_RUNTIME_ENGINE_LANES_H_
#define PYHOST_RUNTIME_ENGINE_LANES_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/deadline.h"
#include "runtime/base/ids.h"
#include "runtime/broker/call_client.h"
#include "runtime/broker/call_lane.h"
#include "pyhost/options.h"

namespace pyhost {

class Lanes {
 public:
  // For workers with the numbers 0 to `workers` - 1.  `client` outlives the lanes.
  static absl::StatusOr<std::unique_ptr<Lanes>> Create(Segment& segment, CallClient& client, int workers);

  // What a worker serves, the preferred first: the lane of its own, then those of all.
  std::vector<Handle> HandlesFor(int worker) const;
  static constexpr size_t kWaitAt = 2;  // in those: where the workers wait

  absl::Status Push(Priority priority, const MessageView& call);
  // For the worker of this number alone.
  absl::Status PushTo(int worker, const MessageView& call);
  void Announce();
  // Calls beyond those that can be on their way to workers are kept back here, and go when Refill() is called: pushes some, and
  // says whether others are left.
  bool keeps_back() const { return keeps_back_.load(std::memory_order_relaxed); }
  bool Refill();

  // True: no worker will run it.
  bool Cancel(CallId call);
  // Whether that worker runs the call.
  bool Runs(HostId worker, CallId call) const;
  // Waits until what this worker, which has ended, had in its hands is reported as lost.  False: not by the deadline.
  bool AwaitReport(HostId worker, Deadline deadline) const;
  WorkerFigures FiguresOf(HostId worker) const;
  uint64_t queued() const;

  void Close();
  void Terminate();

 private:
  static constexpr uint32_t kAll = ~uint32_t{0};
  static constexpr size_t kShared = 3;
  explicit Lanes(Segment& segment) : segment_(segment) {}
  absl::Status PushInto(size_t lane, const MessageView& call);
  CallLane& wait_lane() { return *lanes_[static_cast<size_t>(Priority::kNormal)]; }

  Segment& segment_;
  std::vector<std::unique_ptr<CallLane>> lanes_;  // by Priority, then the workers' own; constant after creation
  std::atomic<uint32_t> unannounced_{0};          // kAll: for a worker of its own, so all are to look
  std::atomic<bool> keeps_back_{false};
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_ENGINE_LANES_H_
