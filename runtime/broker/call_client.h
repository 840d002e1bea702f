// CallClient: the caller's end of a pool.  Submits calls and gives every call's outcome to the group it
// belongs to: one apply, one map, one imap.
//
//   auto group = client->NewGroup();
//   CallId first = *client->Register(group, 3, 0);     the ids first, first+1, first+2: outcomes 0, 1 and 2 of the group
//   client->Push(calls, wait);                         (what was not pushed: Withdraw)
//   client->WaitForArrival(*group, wait);              drains the reply queue while it waits
//   client->Take(*group, 10)                           outcomes, undecoded, in the order of their arrival
//
// No thread stands between the reply queue and the thread that waits: the first of the waiting threads pops
// replies for all (the leader), the others (followers) sleep until the leader brought something or left.  Replies
// reach their groups undecoded; decoding is the business of the group's owner alone.
//
// Every registered call arrives exactly once: as a reply, as lost with its worker, withdrawn, or failed with the pool.
//
// Thread-safe.  Belongs to the process that created it: in a process forked from it nothing may be called but me()
// and ReleaseInherited() (a lock may have been held by a thread that does not exist there).
// No lock of this class is held while waiting.

#ifndef PYHOST_RUNTIME_BROKER_CALL_CLIENT_H_
#define PYHOST_RUNTIME_BROKER_CALL_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "runtime/base/ids.h"
#include "runtime/base/wait.h"
#include "runtime/broker/call_frame.h"
#include "runtime/broker/pool_state.h"
#include "runtime/queue/queue.h"
#include "runtime/segment/host_table.h"
#include "runtime/sync/waiter.h"

namespace pyhost {

// The outcome of one call.  `status` is OK: `message` holds a reply.  Otherwise there is none, and this is why:
// Cancelled (withdrawn by the caller), what Fail() was given, or what Conclude() was.
struct Arrival {
  uint64_t index = 0;
  absl::Status status;
  Message message;
  std::string verdict;  // what Conclude() was given: opaque here
};

// Calls whose outcomes are taken together.  Opaque: all of it is guarded by its client's lock.
class CallGroup {
 public:
  // `notify`: when the last call has arrived, the group is handed to WaitForFinished().
  explicit CallGroup(bool notify) : notify_(notify) {}

 private:
  friend class CallClient;
  bool notify_;
  bool open_ = false;      // more calls will be registered
  bool finished_ = false;  // was handed to WaitForFinished
  bool abandoned_ = false;
  uint64_t outstanding_ = 0;
  // Those before taken_ are gone.  (A deque would allocate half a kilobyte for the one arrival of most groups.)
  std::vector<Arrival> arrived_;
  size_t taken_ = 0;
};

// Gets what workers say for no call, instead of TakeReport(): reports, and what else their faces agree upon.
class NoticeSink {
 public:
  virtual ~NoticeSink() = default;
  // Under the client's lock: returns soon and calls nothing of the client.
  virtual void OnNotice(Message notice) = 0;
};

struct LostCall {
  CallId call;
  LostWorker worker;
};

// Calls that ran longer than they may, and how long it is until the next does.
struct Overdue {
  struct Call {
    HostId worker;
    CallId call;
    absl::Duration limit;
  };
  std::vector<Call> calls;
  absl::Duration next = absl::InfiniteDuration();
};

// A worker's figures; see Hand in pool_state.h.
struct WorkerFigures {
  HostId worker;
  uint64_t calls = 0;
  uint64_t busy_nanos = 0;
  uint64_t pickling_nanos = 0;
  uint64_t waiting_nanos = 0;
  uint64_t bytes_in = 0;
  uint64_t bytes_out = 0;
  CallId in_hand;
  uint64_t running_nanos = 0;  // since the call in hand began
};

class CallClient {
 public:
  // Cancel() reaches the newest `cancellable` of the outstanding calls.
  static absl::StatusOr<std::unique_ptr<CallClient>> Create(Segment& segment, HostId me, uint32_t cancellable = 0);
  // Terminates the pool if that was not done.
  ~CallClient();
  CallClient(const CallClient&) = delete;
  CallClient& operator=(const CallClient&) = delete;

  HostId me() const { return me_; }
  Handle handle() const { return pool_; }
  // For pools that answer here too (CallLane).
  Handle reply_queue() const { return replies_.handle(); }
  // In a process forked from the owner, instead of the destructor: gives back what the fork inherited.
  static void ReleaseInherited(std::unique_ptr<CallClient> client, HostId me);

  // An open group may get calls after all of its calls have arrived; it ends with CloseGroup().
  std::shared_ptr<CallGroup> NewGroup(bool notify = false, bool open = false);
  void CloseGroup(const std::shared_ptr<CallGroup>& group);
  // `count` new calls; they arrive with the indices first_index, first_index + 1, ...
  // FailedPrecondition when the pool takes no calls any more.
  absl::StatusOr<CallId> Register(const std::shared_ptr<CallGroup>& group, uint64_t count, uint64_t first_index);
  // Pushes registered calls (tag = CallId), in order.  Returns how many were pushed; `*status` says why it stopped.
  size_t Push(std::span<const MessageView> calls, Wait wait, absl::Status* status);
  // Waits until fewer than `calls` calls wait for a worker, or no call is taken any more.
  absl::Status WaitForRoom(uint64_t calls, Wait wait);
  // These registered calls were not pushed: they arrive as Cancelled.
  void Withdraw(CallId first, uint64_t count);
  // The registered call arrives with `status`, if it is still outstanding: its outcome is known from elsewhere.
  void Settle(CallId call, const absl::Status& status);
  // Nobody will take this group's outcomes: they are dropped as they arrive.
  void Abandon(CallGroup& group);
  // True: the call had not been taken and no worker will run it; it leaves its group without an arrival.
  bool Cancel(CallId call) { return CancelRange(call, 1, {}) == 1; }
  // The same for `count` calls; how many.  With a verdict they arrive, as Cancelled.
  uint64_t CancelRange(CallId first, uint64_t count, const std::string& verdict);
  // Whether a worker took the call, as far as that is known (see Cancel).
  bool Taken(CallId call) const { return view_.tickets.Taken(call); }
  // The registered call, about to be pushed as this message, is to be pushed again when it is lost with its worker, until it
  // was run `attempts` times.  Holds what the message carries until the call has arrived.
  void Keep(CallId call, const MessageView& message, uint32_t attempts);
  // Takes all calls that no worker has taken off the queue; they arrive as Cancelled.
  void CancelQueued();
  // From now on the group is handed to WaitForFinished() when it is finished, or at once if it is.
  void Notify(const std::shared_ptr<CallGroup>& group);

  // The worker in whose hands the call is; none when it is in nobody's.
  HostId WorkerOf(CallId call) const;
  // True: the worker runs this call and will not answer it; whoever asked must see to the worker's end, then Conclude().
  // False: the call is about to be answered, or was.
  bool Condemn(HostId worker, CallId call);
  // The condemned call arrives with this status and verdict.  False when it arrived otherwise (the pool ended).
  bool Conclude(CallId call, absl::Status status, std::string verdict);
  // Running calls that are not condemned and ran longer than their limit.
  Overdue FindOverdue() const;

  // Waits until the group has something to take or nothing more will come.
  absl::Status WaitForArrival(CallGroup& group, Wait wait);
  // Waits until all of the group's calls have arrived, or or_else(), which is called under this client's lock.  Null group:
  // or_else() alone.
  absl::Status WaitForAllOr(CallGroup* group, const std::function<bool()>& or_else, Wait wait);
  // The call has neither arrived nor been cancelled.
  bool IsOutstanding(CallId call);
  // Something changed that no reply tells: whoever waits looks again, the leader too, who sleeps on the reply queue.
  void WakeWaiters() ABSL_LOCKS_EXCLUDED(mutex_);
  // Set before the first worker is started; outlives the client.
  void SetNoticeSink(NoticeSink* sink) { sink_ = sink; }
  // Waits until all of the group's calls have arrived.
  absl::Status WaitForAll(CallGroup& group, Wait wait);
  // Waits until every registered call has arrived.
  absl::Status WaitForOutstanding(Wait wait);
  std::vector<Arrival> Take(CallGroup& group, size_t max);
  // Nothing outstanding and not open; what has arrived may still wait to be taken.  Drains what is there.
  bool Finished(CallGroup& group);
  // Waits until a group with `notify` finished, and returns all such groups, once each.  Drains only while such groups
  // are outstanding, so that it does not come between a waiting thread and its reply.  Cancelled: Fail,
  // Terminate or StopWaiting was called and no such group is left.
  absl::StatusOr<std::vector<std::shared_ptr<CallGroup>>> WaitForFinished(Wait wait);
  void StopWaiting();
  // One of those groups, of what was drained so far; null when there is none.
  std::shared_ptr<CallGroup> TakeFinished();

  // No new calls; the workers end when they have drained the queue.  Idempotent.
  void Close();
  // ... without taking further calls.  Outstanding calls arrive with `status`.
  void Terminate(const absl::Status& status);
  // The pool has no workers and gets no more: outstanding calls arrive with `status`, new ones are refused with it.
  void Fail(const absl::Status& status);
  // Waits until all replies that were pushed before have reached their groups.
  absl::Status Drain(Wait wait);
  // Delivers the replies that are there now, without waiting.
  void DrainWhatIsThere();
  // The same, of some of them.  False: none came.
  bool DrainSome();
  // The first call that was lost with its worker, and how, of the replies drained so far.
  std::optional<LostCall> FirstLost() const;
  // What a worker that could not begin reported last; empty when none did since the last time.
  std::string TakeReport();

  uint64_t outstanding() const;
  // What the workers have to do: calls that have not arrived, after the replies that are there were taken in, without waiting.
  // Never too few, as by a loss that is told twice or comes after its call was concluded: callers sleep or start workers by it.
  uint64_t CountUnanswered();
  // The same, of one group.
  uint64_t CountUnanswered(const CallGroup& group);
  // Calls that were withdrawn since the pool began.
  uint64_t withdrawn() const;
  // Calls answered or lost since the pool began.
  uint64_t answered() const;
  // Calls no worker has taken yet.
  uint64_t queued() const { return calls_.depth(); }
  // What this worker is running; none when idle, or not a worker of this pool.
  CallId RunningOn(HostId worker) const;
  std::vector<WorkerFigures> Figures() const;

 private:
  // Consecutive calls of one group that have not all arrived.
  struct Range {
    std::shared_ptr<CallGroup> group;
    uint64_t count = 0;
    uint64_t left = 0;
    uint64_t first_index = 0;
    std::vector<bool> arrived;  // empty when count is 1
  };
  // A call that may run again.
  struct KeptCall {
    std::string payload;
    std::vector<Handle> handles;  // ours in segment.refs()
    uint32_t attempts_left = 0;
    HostId lost_with;  // the last time
  };
  using Ranges = absl::btree_map<uint64_t, Range>;  // by first id

  CallClient(Segment& segment, HostId me, Handle pool, PoolView view, Queue calls, Queue replies);
  // Waits until done() (called with mutex_ held), leading or following.
  template <typename Done>
  absl::Status Await(Done done, Wait wait);
  template <typename Done>
  absl::Status Lead(Done done, Wait wait, bool* satisfied);
  // The call is outstanding no more: its group and the index there; null when it was not.
  std::shared_ptr<CallGroup> Leave(CallId call, uint64_t* index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DeliverReply(CallId call, Message message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DeliverLost(CallId call, HostId worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteReport(Message message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DeliverReplies(std::vector<Message> messages) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The leader's: looks through the hands for calls of dead workers that recovery could not report (no memory).
  void CollectLost() ABSL_LOCKS_EXCLUDED(mutex_);
  void Deliver(CallId call, absl::Status status, Message message, std::string verdict = {})
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DeliverAll(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A lost call that may run again: true, and SubmitAgain() pushes it.
  bool TakeAgain(CallId call, HostId dead) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SubmitAgain() ABSL_LOCKS_EXCLUDED(mutex_);
  void Forget(KeptCall& kept);
  Ranges::iterator FindRange(uint64_t call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteIfFinished(const std::shared_ptr<CallGroup>& group) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Segment& segment_;
  const HostId me_;
  const Handle pool_;
  PoolView view_;
  Queue calls_;
  Queue replies_;
  NoticeSink* sink_ = nullptr;

  WaitPoint progress_;  // followers: something arrived, or there is no leader

  mutable absl::Mutex mutex_;
  bool leading_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t next_call_ ABSL_GUARDED_BY(mutex_) = 1;
  uint64_t settled_ ABSL_GUARDED_BY(mutex_) = 0;  // messages of the reply queue that were delivered, or lost in it
  uint64_t reports_ ABSL_GUARDED_BY(mutex_) = 0;  // messages for no call
  uint64_t outstanding_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t withdrawn_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t notifying_ ABSL_GUARDED_BY(mutex_) = 0;  // groups with `notify` that have not finished
  bool stop_waiting_ ABSL_GUARDED_BY(mutex_) = false;
  absl::flat_hash_set<uint64_t> condemned_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<uint64_t, KeptCall> kept_ ABSL_GUARDED_BY(mutex_);
  std::vector<CallId> again_ ABSL_GUARDED_BY(mutex_);  // kept calls to be pushed
  absl::flat_hash_set<uint32_t> gone_ ABSL_GUARDED_BY(mutex_);  // workers that were found dead before anybody said how
  std::optional<LostCall> lost_ ABSL_GUARDED_BY(mutex_);
  std::string report_ ABSL_GUARDED_BY(mutex_);
  absl::Status refused_ ABSL_GUARDED_BY(mutex_);    // why no call is taken any more
  Ranges ranges_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<CallGroup>> finished_ ABSL_GUARDED_BY(mutex_);  // with `notify`
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_BROKER_CALL_CLIENT_H_
