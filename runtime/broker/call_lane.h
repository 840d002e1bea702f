// CallLane: one of several ways into the same workers.  A pool of its own (queue, hands, tickets) whose replies go to the
// reply queue of a CallClient: that one registers the calls and delivers what they give.
//
//   CallId call = *client->Register(group, 1, 0);
//   lane->Push({..., .tag = call.value()});       wakes nobody
//   lane->NotifyReaders(1);                       at the lane where the workers wait (LaneServer)
//
// Every call that no worker has taken can be cancelled, so each needs a ticket.  A call whose ticket an older one still has
// is kept back in this process; Refill() pushes it when it can have it.
//
// Thread-safe.  The client outlives the lane.

#ifndef PYHOST_RUNTIME_BROKER_CALL_LANE_H_
#define PYHOST_RUNTIME_BROKER_CALL_LANE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
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
  // `tickets`: about so many calls can be on their way to the workers at once.
  static absl::StatusOr<std::unique_ptr<CallLane>> Create(Segment& segment, CallClient& client, uint32_t tickets);
  // Terminates the lane.
  ~CallLane();
  CallLane(const CallLane&) = delete;
  CallLane& operator=(const CallLane&) = delete;

  Handle handle() const { return pool_; }
  // The tag is the CallId.  Never blocks; ResourceExhausted, FailedPrecondition when closed.
  absl::Status Push(const MessageView& call);
  bool keeps_back() const { return keeps_back_.load(std::memory_order_relaxed); }
  // Pushes calls that were kept back, `most` of them at most.  True: some are left.
  bool Refill(uint32_t most);
  void NotifyReaders(uint32_t calls) { calls_.NotifyReaders(calls); }
  // True: no worker will run it.  Its group is to be told (CallClient::Settle).
  bool Cancel(CallId call);

  uint64_t queued() const;
  CallId RunningOn(HostId worker) const;
  // Adds this lane's to the worker's figures.
  void AddFigures(WorkerFigures* figures) const;

  // No more calls; workers end when they have done those that are here.
  void Close();
  // ... without doing them.
  void Terminate();

 private:
  struct KeptBack {
    std::string payload;
    std::vector<Handle> handles;  // ours in segment_.refs()
  };

  CallLane(Segment& segment, HostId me, Handle pool, PoolView view, Queue calls)
      : segment_(segment), me_(me), pool_(pool), view_(view), calls_(calls) {}
  const Hand* HandOf(HostId worker) const;
  bool MayGo(CallId call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsInAHand(CallId call) const;
  absl::Status PushNow(const MessageView& call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status KeepBack(const MessageView& call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // False: nothing is kept back, or it cannot go now.
  bool PushOneKeptBack() ABSL_LOCKS_EXCLUDED(mutex_);
  void Forget(CallId call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Segment& segment_;
  const HostId me_;
  const Handle pool_;
  PoolView view_;
  Queue calls_;
  std::atomic<bool> keeps_back_{false};
  mutable absl::Mutex mutex_;  // Tickets are issued by one thread at a time, and pushed in that order.
  absl::btree_map<uint64_t, KeptBack> kept_back_ ABSL_GUARDED_BY(mutex_);  // by CallId
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_BROKER_CALL_LANE_H_
