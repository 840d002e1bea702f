// PoolState: what the processes of one pool share (an object of kind kPool).
//
//   object state   PoolState: the two queues, flags, who claimed last
//   object block   Hand[hosts().capacity()]: what each worker has in its hands, by the slot of its HostId
//                  Tickets::Word[ticket_count]: which calls may still be cancelled (tickets.h)
//
//   caller --push--> call queue --pop--> worker --push--> reply queue --pop--> caller
//
// The pool keeps both queues alive with a transit count each, from creation to destroy.  Caller and workers hold
// the pool and, once opened, the queues as well (so that the death of one repairs what it held of them).
//
// A hand, and what the death of its worker means:
//   empty               nothing
//   claimed, position p, the queue's popped() <= p    the pop did not commit: the call is still in the queue
//   claimed, position p, the queue's popped() >  p    the call is lost: recovery pushes a kLost reply
// A worker that died between the push of its reply and emptying its hand leaves a reply and a kLost for the same
// call, in that order; the caller drops the second.
//
// Who may decide a running call's outcome stands in one word, Hand::running = CallId << 1 | condemned:
//   worker   Take      0 -> call
//            Reply     call -> 0             it will be answered; fails when condemned: the worker ends instead
//   caller   Condemn   call -> call | 1      it will not be answered: the worker may be killed without harm to another call
//
// Invariants:
//  (1) A hand is written by its worker alone, except: the next claimer of the same position voids it (under the
//      queue's consumer lock), and recovery empties it once its worker is dead.
//  (2) The claimer of a position stands in last_claim before it fills its hand, so the next claimer of the same
//      position finds whom to void.  Hence at most one hand holds a committed position.
//  (3) Recovery reads popped() before the hand: a void that preceded the commit is then seen.

#ifndef PYHOST_RUNTIME_BROKER_POOL_STATE_H_
#define PYHOST_RUNTIME_BROKER_POOL_STATE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/broker/attention.h"
#include "runtime/broker/call_frame.h"
#include "runtime/broker/tickets.h"
#include "runtime/queue/queue.h"

namespace pyhost {

class Segment;

// Bits of PoolState::flags.
inline constexpr uint32_t kPoolTerminated = 1;  // calls not yet taken are not wanted any more
inline constexpr uint32_t kPoolOwnerGone = 2;   // the caller's process ended: nobody reads replies
inline constexpr uint32_t kPoolEnded = kPoolTerminated | kPoolOwnerGone;
inline constexpr uint32_t kPoolReported = 4;    // a worker said why it cannot begin

// Hand::running.
inline constexpr uint64_t kCondemned = 1;
constexpr uint64_t RunningWord(CallId call) { return call.value() << 1; }

struct PoolState {
  uint64_t call_queue;   // Handle; constant after creation, 0 once the pool is being destroyed
  uint64_t reply_queue;  // as call_queue
  uint32_t owner;        // HostId of the caller; constant after creation
  uint32_t hand_count;   // constant after creation
  uint32_t ticket_count;  // constant after creation; 0: no call can be cancelled
  uint32_t reserved;
  std::atomic<uint32_t> flags;
  // Guarded by the call queue's consumer lock: slot of the last claimer, and position + 1 of its claim.
  std::atomic<uint32_t> last_claimer;
  std::atomic<uint64_t> last_claim;
  // A line of its own: workers write it, callers read it only when they would have to wake somebody.
  alignas(64) Attention attention;
};
static_assert(std::atomic<uint64_t>::is_always_lock_free && std::atomic<uint32_t>::is_always_lock_free);
static_assert(std::is_standard_layout_v<PoolState> && sizeof(PoolState) == 128);

// One worker's hands and its figures.  Two cache lines, so that neighbours do not disturb each other.
struct alignas(128) Hand {
  std::atomic<uint32_t> worker;        // HostId of the worker; 0 = never used in this pool
  std::atomic<uint32_t> limit_millis;  // how long the function that runs now may take; 0 = no limit, or none runs
  std::atomic<uint64_t> claim;   // position + 1 of the message in hand; 0 = empty.  Written after `call`.
  std::atomic<uint64_t> call;    // its CallId
  std::atomic<uint64_t> running;  // see above
  // Figures, written by the worker alone.
  std::atomic<uint64_t> calls;          // finished
  std::atomic<uint64_t> started_nanos;  // CLOCK_MONOTONIC when the function (with a limit: its item) began; 0 = none
  std::atomic<uint64_t> busy_nanos;     // in functions
  std::atomic<uint64_t> pickling_nanos;  // in reading calls and writing replies
  std::atomic<uint64_t> waiting_nanos;  // in Next()
  std::atomic<uint64_t> bytes_in;       // payloads of calls
  std::atomic<uint64_t> bytes_out;      // payloads of replies
};
static_assert(sizeof(Hand) == 128 && std::is_standard_layout_v<Hand>);

// A pool's shared parts, opened by this process: a view, valid while the process holds pool and queues.
struct PoolView {
  PoolState* state = nullptr;
  std::span<Hand> hands;
  Tickets tickets;
};

// Creates pool and queues.  The calling host holds the pool through segment.refs() afterwards; the queues live as long
// as the pool.  Of the outstanding calls the newest `most_tickets` can be cancelled, or fewer where memory is little.
// `replies`: the reply queue of another pool of the caller's, to be this one's as well; none: its own.
absl::StatusOr<Handle> CreatePool(Segment& segment, HostId me, uint32_t most_tickets = 0, Handle replies = {});
// Range-checked; NotFound for a pool that is gone, DataLoss for nonsense.
absl::StatusOr<PoolView> OpenPool(Segment& segment, Handle pool);

// Registers the pool's destroy, recover and visit functions.  Called by start-up, as RegisterQueueKind is.
void RegisterPoolKind();

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_BROKER_POOL_STATE_H_
