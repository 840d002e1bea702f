// CallServer: a worker's end of a pool.  Takes calls one at a time and answers each.
//
//   server->Next(wait)      the next call; the worker now has it in its hand
//   server->Begin(limit)    its function begins (what came before was unpickling), and has returned: for the figures,
//   server->End()           and for the watch over limits
//   server->Reply(...)      its answer; the hand is empty again
//
// A call that was taken and not answered is reported as lost when the worker's process dies, or by
// ReportLost() when it ends in the middle of the call by its own doing.
//
// Ordering: what the caller wrote before it submitted a call is visible after Next() returned it; what the worker
// wrote before Reply() is visible to whoever gets the reply.
//
// One thread of one process at a time; a process has at most one server of a pool.  Not usable in a process
// forked from the worker (FailedPrecondition).

#ifndef PYHOST_RUNTIME_BROKER_CALL_SERVER_H_
#define PYHOST_RUNTIME_BROKER_CALL_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/base/wait.h"
#include "runtime/broker/call_frame.h"
#include "runtime/broker/pool_state.h"
#include "runtime/queue/queue.h"
#include "runtime/segment/host_table.h"

namespace pyhost {

class CallServer {
 public:
  // The calling host holds `pool`.
  static absl::StatusOr<std::unique_ptr<CallServer>> Open(Segment& segment, HostId me, Handle pool);
  ~CallServer();
  CallServer(const CallServer&) = delete;
  CallServer& operator=(const CallServer&) = delete;

  // OutOfRange: the pool is closed and drained, terminated, or its caller is gone: the worker should end.
  // DeadlineExceeded, or the interruptible's error: nothing was taken.
  // Calls that were cancelled before they were taken are passed over.
  absl::StatusOr<Message> Next(Wait wait);

  void Begin(uint32_t limit_millis);
  // The function goes on to its next item: the limit is for each.
  void BeginItem();
  void End();

  // Answers the call taken last.  `parts` and `handles` make up the outcome.  On an error (ResourceExhausted) nothing was
  // sent and the call is still in hand: answer with something smaller.  Aborted: the caller has condemned the call and
  // wants no answer; it is about to kill this worker, who should end.
  absl::Status Reply(ReplyKind kind, std::span<const std::span<const std::byte>> parts,
                     std::span<const Handle> handles);
  // The worker is about to end with `status` without an outcome.
  absl::Status ReportLost(ExitStatus status);

  // Tells the caller why this worker will not take calls (CallClient::TakeReport).  `*first`: no other worker of the pool
  // did so before.
  absl::Status Report(std::span<const std::byte> report, bool* first = nullptr);
  // Something else for no call; `kind` says what.  From any thread.
  absl::Status Notice(ReplyKind kind, std::span<const std::span<const std::byte>> parts, std::span<const Handle> handles);

  CallId in_hand() const { return in_hand_; }
  // Next() would not wait.  A look that costs nothing.
  bool HasNext() const { return !calls_.empty() || calls_.closed(); }
  // Where workers wait that serve several pools (LaneServer).
  Queue& calls() { return calls_; }

 private:
  absl::StatusOr<Message> Take(Wait wait);
  // Pops, and sleeps so that its caller need not wake it for each call (attention.h).
  absl::StatusOr<Message> PopAttentively(Queue::Claimer& claimer, Wait wait);
  absl::StatusOr<Message> PopDozing(Queue::Claimer& claimer, Wait wait);
  CallServer(Segment& segment, HostId me, Handle pool, PoolView view, Queue calls, Queue replies)
      : segment_(segment), me_(me), pool_(pool), view_(view), calls_(calls), replies_(replies) {}
  void EmptyHand();
  // The caller may not condemn the call in hand any more; false when it has.
  bool Settle();
  Hand& hand() { return view_.hands[me_.slot()]; }

  Segment& segment_;
  const HostId me_;
  const Handle pool_;
  PoolView view_;
  Queue calls_;
  Queue replies_;
  CallId in_hand_;
  bool settled_ = false;
  int64_t took_nanos_ = 0;      // when this worker last said that it is at work (attention.h)
  int64_t taken_nanos_ = 0;     // when the call in hand was taken,
  int64_t began_nanos_ = 0;     // its function began,
  int64_t returned_nanos_ = 0;  // and returned; 0 = not yet
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_BROKER_CALL_SERVER_H_
