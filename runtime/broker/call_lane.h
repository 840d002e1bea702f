// CallLane: one of several ways into the same workers.  A pool of its own (queue, hands, tickets) whose replies go to the
// reply queue of a CallClient: that one registers the calls and delivers what they give.
//
//   CallId call = *client->Register(group, 1, 0);
//   lane->Push({..., .tag = call.value()});       wakes nobody
//   lane->NotifyReaders(1);                       at the lane where the workers wait (LaneServer)
//
// Thread-safe.  The client outlives the lane.

#ifndef PYHOST_RUNTIME_BROKER_CALL_LANE_H_
#define PYHOST_RUNTIME_BROKER_CALL_LANE_H_

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "runtime/base/ids.h"
#include "runtime/broker/call_client.h"
#include "runtime/broker/pool_state.h"
#include "runtime/queue/queue.h"

namespace pyhost {

class CallLane {
 public:
  // Cancel() reaches the newest `cancellable` calls.
  static absl::StatusOr<std::unique_ptr<CallLane>> Create(Segment& segment, CallClient& client, uint32_t cancellable);
  // Terminates the lane.
  ~CallLane();
  CallLane(const CallLane&) = delete;
  CallLane& operator=(const CallLane&) = delete;

  Handle handle() const { return pool_; }
  // The tag is the CallId.  Never blocks; ResourceExhausted, FailedPrecondition when closed.
  absl::Status Push(const MessageView& call);
  void NotifyReaders(uint32_t calls) { calls_.NotifyReaders(calls); }
  // True: no worker will run it.  Its group is to be told (CallClient::Settle).
  bool Cancel(CallId call);

  uint64_t queued() const { return calls_.depth(); }
  CallId RunningOn(HostId worker) const;
  // Adds this lane's to the worker's figures.
  void AddFigures(WorkerFigures* figures) const;

  // No more calls; workers end when they have done those that are here.
  void Close() { calls_.Close(); }
  // ... without doing them.
  void Terminate();

 private:
  CallLane(Segment& segment, HostId me, Handle pool, PoolView view, Queue calls)
      : segment_(segment), me_(me), pool_(pool), view_(view), calls_(calls) {}
  const Hand* HandOf(HostId worker) const;

  Segment& segment_;
  const HostId me_;
  const Handle pool_;
  PoolView view_;
  Queue calls_;
  absl::Mutex mutex_;  // Tickets are issued by one thread at a time, and pushed in that order.
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_BROKER_CALL_LANE_H_
